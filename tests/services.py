"""Services for tests to talk to: the local server of this repository, and a stand-in that answers
as it is told."""

import base64
import hashlib
import http.server
import json
import os
import signal
import struct
import subprocess
import tempfile
import threading
import urllib.request
from pathlib import Path

from tap import ROOT, expect

BUILD = ROOT / os.environ.get("BUILD", "build")
KEY = "a-key-for-tests"


class Service:
    """What both have: a URL, and the environment for programs that shall talk to it."""

    url = ""

    def environment(self, **more):
        clean = {name: value for name, value in os.environ.items()
                 if not name.startswith(("LANGSMITH_", "LANGCHAIN_", "SANDBOX_"))}
        return {**clean, "LANGSMITH_ENDPOINT": self.url, "LANGSMITH_API_KEY": KEY, **more}


class LocalServer(Service):
    """build/sandboxd on a port of its own, with these options, until the end of the with block."""

    def __init__(self, *options):
        self.options = options

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory()
        self.log = open(Path(self.directory.name) / "log", "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [BUILD / "sandboxd", "--port", "0", "--data", Path(self.directory.name) / "data",
             *self.options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("listening on http://"):
            self.process.kill()
            self.process.wait()
            self.log.seek(0)
            raise RuntimeError(f"sandboxd did not start: {line}{self.log.read()}")
        self.url = line.split()[-1]
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()
        self.directory.cleanup()

    def get(self, path):
        request = urllib.request.Request(f"{self.url}/v2/sandboxes{path}",
                                         headers={"X-Api-Key": KEY})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def names(self, path, key):
        return {item["name"] for item in self.get(path)[key]}

    def sandboxes(self):
        return self.names("/boxes", "sandboxes")

    def templates(self):
        return self.names("/templates", "templates")

    def volumes(self):
        return self.names("/volumes", "volumes")

    def pools(self):
        return self.names("/pools", "pools")


class Answer:
    """What the stand-in says: a status with a JSON document or bytes, after some time; or, to a
    WebSocket, messages, each a JSON document. Then it closes, or it stays and listens until the
    client goes: heard are the client's messages, and a kill is answered by an exit if it obeys."""

    def __init__(self, status=200, document=None, body=None, length=None, after=0.0, messages=None,
                 stay=False, obeys=True):
        self.messages = messages
        self.stay = stay
        self.obeys = obeys
        self.heard = []
        self.status = status
        self.body = json.dumps(document if document is not None else {}).encode() \
            if body is None else body
        self.length = len(self.body) if length is None else length
        self.after = after


class StandIn(Service):
    """Answers a request (method, path) by the Answer that answers[request] is or, if it is a
    function, returns; all others by otherwise. Remembers the requests in order; headers and bodies
    are in lists of the same order. Paths are without /v2/sandboxes and query."""

    def __init__(self):
        self.answers = {}
        self.otherwise = Answer(404, {"detail": {"message": "no such thing"}})
        self.requests = []
        self.headers = []
        self.bodies = []
        self.closing = threading.Event()

    def __enter__(self):
        stand_in = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                stand_in.answer(self)

            do_GET = do_POST = do_PATCH = do_DELETE = answer

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def answer(self, handler):
        length = int(handler.headers.get("Content-Length", 0))
        path = handler.path.split("?")[0].removeprefix("/v2/sandboxes")
        request = (handler.command, path)
        self.bodies.append(handler.rfile.read(length))
        self.headers.append(dict(handler.headers.items()))
        self.requests.append(request)
        answer = self.answers.get(request, self.otherwise)
        if callable(answer):
            answer = answer()
        self.closing.wait(answer.after)
        try:
            if answer.messages is not None:
                handler.close_connection = True
                self.converse(handler, answer)
                return
            handler.send_response(answer.status)
            if answer.status != 204:
                handler.send_header("Content-Length", str(answer.length))
            handler.end_headers()
            if answer.status != 204:
                handler.wfile.write(answer.body)
            handler.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            pass
        handler.close_connection = answer.messages is not None or answer.length != len(answer.body)

    def converse(self, handler, answer):
        """Sends the messages over a WebSocket, and waits until the client has closed it."""
        key = handler.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        handler.send_response(101)
        handler.send_header("Upgrade", "websocket")
        handler.send_header("Connection", "Upgrade")
        handler.send_header("Sec-WebSocket-Accept",
                            base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        handler.end_headers()
        for message in answer.messages:
            self.send_frame(handler, 0x81, json.dumps(message).encode())
        if answer.stay:
            self.listen(handler, answer)
        self.send_frame(handler, 0x88, struct.pack(">H", 1000))
        while handler.rfile.read(1):
            pass

    @staticmethod
    def send_frame(handler, first, payload):
        handler.wfile.write(struct.pack(">BBH", first, 126, len(payload)) + payload
                            if len(payload) > 125 else bytes([first, len(payload)]) + payload)
        handler.wfile.flush()

    def listen(self, handler, answer):
        """Until a kill, or the end of the connection."""
        while head := handler.rfile.read(2):
            length = head[1] & 127
            if length > 125:
                length = int.from_bytes(handler.rfile.read(2 if length == 126 else 8), "big")
            key = handler.rfile.read(4)
            payload = bytes(byte ^ key[i % 4] for i, byte in enumerate(handler.rfile.read(length)))
            if head[0] == 0x89:
                self.send_frame(handler, 0x8a, payload)
            if head[0] != 0x81:
                continue
            answer.heard.append(json.loads(payload))
            if answer.heard[-1]["type"] == "kill" and answer.obeys:
                self.send_frame(handler, 0x81, b'{"type": "exit", "exit_code": 137}')
                return

    def sandbox(self, name, status="ready", **more):
        """The description of a sandbox whose data plane is this service too."""
        return {"name": name, "status": status, "dataplane_url": f"{self.url}/data", **more}

    def document(self, *request):
        """The JSON body of the first such request."""
        expect(request in self.requests, f"no {request} among {self.requests}")
        return json.loads(self.bodies[self.requests.index(request)])
