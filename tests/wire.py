"""HTTP and WebSocket for tests, by hand and from the standard library alone, so that what is on the
wire can also be wrong."""

import base64
import hashlib
import http.client
import json
import os
import socket
import struct
from urllib.parse import quote, urlsplit

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Reply:
    """An HTTP response: status, headers, body (bytes)."""

    def __init__(self, response, body):
        self.status, self.headers, self.body = response.status, response.headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def detail(self):
        return self.json["detail"]

    def __repr__(self):
        return f"{self.status} {self.body[:300]!r}"


def request(url, method="GET", document=None, body=None, headers=None, timeout=30):
    """One request on a connection of its own."""
    parts = urlsplit(url)
    headers = dict(headers or {})
    if document is not None:
        body = json.dumps(document).encode()
        headers.setdefault("Content-Type", "application/json")
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    try:
        connection.request(method, parts.path + ("?" + parts.query if parts.query else ""), body,
                           headers, encode_chunked="Transfer-Encoding" in headers)
        response = connection.getresponse()
        return Reply(response, response.read())
    finally:
        connection.close()


def dial(url, timeout=30):
    """A TCP connection to the URL's host."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout)


def raw(url, data, timeout=30):
    """What the server says to these bytes until it closes the connection."""
    with dial(url, timeout) as connection:
        connection.sendall(data)
        return everything(connection)


def everything(connection):
    """All that comes until the end."""
    pieces = []
    try:
        while piece := connection.recv(65536):
            pieces.append(piece)
    except ConnectionResetError:
        pieces.append(b"(reset)")
    return b"".join(pieces)


def multipart(data, name="file", boundary="boundary0123"):
    """A body with one part, and its Content-Type."""
    head = (f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="file"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n").encode()
    return (head + data + f"\r\n--{boundary}--\r\n".encode(),
            f"multipart/form-data; boundary={boundary}")


def upload(dataplane, path, data, headers=None):
    body, kind = multipart(data)
    return request(f"{dataplane}/upload?path={quote(path, safe='')}", "POST", body=body,
                   headers={"Content-Type": kind, **(headers or {})})


def download(dataplane, path, method="GET", headers=None):
    return request(f"{dataplane}/download?path={quote(path, safe='')}", method, headers=headers)


class Closed(Exception):
    """The WebSocket is over: code and reason as the server sent them; code None: it just ended."""

    def __init__(self, code, reason=b""):
        super().__init__(f"closed: {code} {reason!r}")
        self.code, self.reason = code, reason


class Refused(Exception):
    """The upgrade was answered otherwise."""

    def __init__(self, status, text):
        super().__init__(f"refused: {status} {text!r}")
        self.status, self.text = status, text


class WebSocket:
    """The client's end of a WebSocket. Messages are JSON objects."""

    def __init__(self, url, headers=None, timeout=30, receive_buffer=None):
        self.key = base64.b64encode(os.urandom(16)).decode()
        parts = urlsplit(url)
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.connect((parts.hostname, parts.port))
        self.buffer = bytearray()
        self.start = 0
        self.reason = b""  # that the server closed with, once rest has seen it
        fields = {"Host": parts.netloc, "Upgrade": "websocket", "Connection": "Upgrade",
                  "Sec-WebSocket-Key": self.key, "Sec-WebSocket-Version": "13",
                  "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
                  **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.socket.sendall(f"GET {parts.path} HTTP/1.1\r\n{head}\r\n".encode())
        while b"\r\n\r\n" not in self.buffer:
            self.more()
        end = self.buffer.index(b"\r\n\r\n") + 4
        answer = bytes(self.buffer[:end]).decode()
        self.start = end
        status = int(answer.split()[1])
        if status != 101:
            text = answer + bytes(self.buffer[end:]).decode()
            self.socket.close()
            raise Refused(status, text)
        expected = base64.b64encode(hashlib.sha1(
            self.key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
        assert f"sec-websocket-accept: {expected}\r\n".lower() in answer.lower(), answer
        assert "extensions" not in answer.lower(), answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def more(self):
        piece = self.socket.recv(1 << 18)
        if not piece:
            raise Closed(None)
        self.buffer += piece

    def take(self, count):
        while len(self.buffer) - self.start < count:
            self.more()
        piece = bytes(self.buffer[self.start:self.start + count])
        self.start += count
        if self.start > 1 << 20 or self.start == len(self.buffer):
            del self.buffer[:self.start]
            self.start = 0
        return piece

    def frame(self):
        """The next frame: opcode and payload."""
        first, second = self.take(2)
        assert second < 128, "a server must not mask"
        length = second
        if length == 126:
            length = struct.unpack(">H", self.take(2))[0]
        elif length == 127:
            length = struct.unpack(">Q", self.take(8))[0]
        assert first & 0x80 and not first & 0x70, "a whole message without extensions"
        return first & 15, self.take(length)

    def receive(self):
        """The next message. Answers pings."""
        while True:
            opcode, payload = self.frame()
            if opcode == CLOSE:
                code = struct.unpack(">H", payload[:2])[0] if payload else 1005
                raise Closed(code, payload[2:])
            if opcode == PING:
                self.send_frame(PONG, payload)
            elif opcode == TEXT:
                return json.loads(payload.decode("utf-8"))
            else:
                assert opcode == PONG, opcode

    def send_frame(self, opcode, payload=b"", first=None, mask=b"\x12\x34\x56\x78"):
        head = bytes([0x80 | opcode if first is None else first])
        masked = 0x80 if mask else 0
        if len(payload) < 126:
            head += bytes([masked | len(payload)])
        elif len(payload) < 65536:
            head += struct.pack(">BH", masked | 126, len(payload))
        else:
            head += struct.pack(">BQ", masked | 127, len(payload))
        if mask:
            key = (mask * (len(payload) // 4 + 1))[:len(payload)]
            payload = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(
                len(payload), "big")
            head += mask
        self.socket.sendall(head + payload)

    def send(self, **message):
        self.send_frame(TEXT, json.dumps(message).encode())

    def rest(self):
        """All messages until the server closes, and its close code."""
        messages = []
        try:
            while True:
                messages.append(self.receive())
        except Closed as closed:
            self.reason = closed.reason
            return messages, closed.code


def joined(messages, stream):
    """The text of one stream; its chunks must follow on each other."""
    text, at = [], None
    for message in messages:
        if message["type"] == stream:
            assert at is None or message["offset"] == at, (message["offset"], at)
            at = message["offset"] + len(message["data"].encode())
            text.append(message["data"])
    return "".join(text)
