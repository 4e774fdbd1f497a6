#!/usr/bin/env python3
"""Commands over WebSocket, as build/sandboxd runs them: streams, terminals, reconnecting, reload,
faults on purpose. Reports in TAP; the last line is "N passed, N failed"."""

import hashlib
import json
import os
import re
import signal
import socket
import struct
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import wire  # noqa: E402
from daemon import SANITIZED, Server, WithServer, main, memory, wait_until  # noqa: E402
from wire import Closed, Refused, WebSocket, joined  # noqa: E402

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"




class Sessions(WithServer):
    def test_a_command_streams_its_output_and_ends_with_its_exit_code(self):
        with self.box.started("echo out; echo err >&2; exit 3") as (ws, started):
            self.assertRegex(started["command_id"], f"^{UUID}$")
            self.assertGreater(started["pid"], 1)
            messages, code = ws.rest()
            self.assertEqual(wire.everything(ws.socket), b"")
        self.assertEqual(code, 1000)
        self.assertEqual(sorted(messages, key=lambda m: m["type"]), [
            {"type": "exit", "exit_code": 3},
            {"type": "stderr", "data": "err\n", "offset": 0},
            {"type": "stdout", "data": "out\n", "offset": 0}])
        self.assertEqual(messages[-1]["type"], "exit")

    def test_output_comes_at_once(self):
        with self.box.started("echo a; sleep 0.5; printf b; sleep 0.5") as (ws, _):
            start = time.monotonic()
            self.assertEqual(ws.receive(), {"type": "stdout", "data": "a\n", "offset": 0})
            self.assertLess(time.monotonic() - start, 0.3)
            self.assertEqual(ws.receive(), {"type": "stdout", "data": "b", "offset": 2})
            self.assertLess(time.monotonic() - start, 0.8)

    def test_characters_are_never_split(self):
        text = "a\u00e4\u20ac\U0001f600" * 30000
        wire.upload(self.box.url, "/tmp/text", text.encode())
        messages, _ = self.box.stream("cat /tmp/text; printf '\\xf0\\x9f'; sleep 0.2; "
                                      "printf '\\x98\\x80'; printf '\\xe2\\x82'")
        self.assertEqual(joined(messages, "stdout"), text + "\U0001f600\ufffd")
        self.assertLessEqual(max(len(m.get("data", "").encode()) for m in messages), 65536)

    def test_control_characters_are_escaped(self):
        data = bytes(range(128)) * 2000
        wire.upload(self.box.url, "/tmp/ascii", data)
        self.assertEqual(joined(self.box.stream("cat /tmp/ascii")[0], "stdout").encode(), data)

    def test_invalid_bytes_are_replaced_wherever_they_are_cut(self):
        data = bytes((i * i * 31 + i // 7) % 256 for i in range(300000))
        wire.upload(self.box.url, "/tmp/noise", data)
        messages, _ = self.box.stream("cat /tmp/noise")
        self.assertEqual(joined(messages, "stdout"), data.decode("utf-8", "replace"))

    def test_a_hundred_megabytes_arrive_whole(self):
        messages, code = self.box.stream("head -c 100000000 /dev/zero | tr '\\0' 'x'")
        self.assertEqual((len(joined(messages, "stdout")), messages[-1], code),
                         (100000000, {"type": "exit", "exit_code": 0}, 1000))

    def test_a_slow_client_loses_nothing(self):
        with self.box.started("seq 1 400000", options={"receive_buffer": 4096}) as (ws, _):
            time.sleep(1)
            messages, _ = ws.rest()
        self.assertEqual(joined(messages, "stdout"),
                         "".join(f"{i}\n" for i in range(1, 400001)))

    def test_a_slow_client_makes_the_command_wait(self):
        command = "for i in {1..40}; do head -c 1000000 /dev/zero | tr '\\0' x; " \
                  "echo $i > /tmp/i; done"
        with self.box.started(command, options={"receive_buffer": 4096}) as (ws, started):
            time.sleep(1)
            self.assertLess(int(self.box.output("cat /tmp/i")), 20)
            self.assertEqual(len(joined(ws.rest()[0], "stdout")), 40000000)
            self.assertTrue(started)

    def test_input_reaches_the_command(self):
        with self.box.started("read a; echo got $a; cat; echo end") as (ws, _):
            ws.send(type="input", data="one\n")
            self.assertEqual(ws.receive()["data"], "got one\n")
            ws.send(type="input", data="\u00e4\u0000x")
            ws.send(type="unknown", data=1)
            ws.send(type="input")
            ws.send(type="close_stdin")
            ws.send(type="input", data="too late")
            messages, _ = ws.rest()
        self.assertEqual(joined(messages, "stdout"), "\u00e4\u0000xend\n")

    def test_large_input_is_not_lost(self):
        text = "0123456789abcde\n" * 65536
        with self.box.started("sleep 0.3; sha256sum; sleep 0.2") as (ws, _):
            for _ in range(6):
                ws.send(type="input", data=text)
            ws.send(type="close_stdin")
            messages, _ = ws.rest()
        self.assertEqual(joined(messages, "stdout").split()[0],
                         hashlib.sha256(text.encode() * 6).hexdigest())

    def test_close_stdin_at_the_start_ends_input_at_once(self):
        messages, _ = self.box.stream("cat; echo end", close_stdin=True)
        self.assertEqual(joined(messages, "stdout"), "end\n")

    def test_a_command_that_does_not_read_its_input_can_still_be_killed(self):
        with self.box.started("sleep 100") as (ws, _):
            for _ in range(3):
                ws.send(type="input", data="x" * 300000)
            ws.send(type="kill")
            self.assertEqual(ws.rest()[0], [{"type": "exit", "exit_code": 137}])

    def test_kill_ends_the_whole_process_group(self):
        with self.box.started("sleep 100.4 & sleep 100.4 & echo ready; wait") as (ws, _):
            ws.receive()
            ws.send(type="kill")
            self.assertEqual(ws.rest(), ([{"type": "exit", "exit_code": 137}], 1000))
        self.assertEqual(self.box.output("pgrep -f 'sleep [1]00.4'"), "")

    def test_kill_works_when_the_client_goes_right_after_it(self):
        with self.box.started("sleep 100.5") as (ws, started):
            ws.send(type="kill")
        self.assertTrue(wait_until(lambda: not self.box.output("pgrep -f 'sleep [1]00.5'")))
        self.assertEqual(self.box.reconnect(started["command_id"])[0][-1],
                         {"type": "exit", "exit_code": 137})

    def test_kill_works_when_the_connection_is_reset_amid_output(self):
        for _ in range(5):
            with self.box.started("yes 100.51") as (ws, _):
                ws.receive()
                ws.send(type="kill")
                ws.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.assertTrue(wait_until(lambda: not self.box.output("pgrep -f '[1]00.51'"), 3))

    def test_a_command_that_runs_too_long_ends_with_command_timeout(self):
        messages, code = self.box.stream("echo a; sleep 100.6 & sleep 100.6", timeout_seconds=0.3)
        self.assertEqual(messages, [
            {"type": "stdout", "data": "a\n", "offset": 0},
            {"type": "error", "error_type": "CommandTimeout",
             "error": "Command timed out after 0.3 seconds"}])
        self.assertEqual(code, 1000)
        self.assertEqual(self.box.output("pgrep -f 'sleep [1]00.6'"), "")

    def test_the_old_name_of_the_timeout_is_understood(self):
        # The Python client of March 2026 calls it so.
        self.assertEqual(self.box.stream("sleep 100", timeout=0.2)[0][-1]["error_type"],
                         "CommandTimeout")

    def test_a_timeout_of_0_is_none(self):
        messages, _ = self.box.stream("sleep 0.2; echo a", timeout_seconds=0)
        self.assertEqual(messages[-1], {"type": "exit", "exit_code": 0})

    def test_a_command_that_cannot_start_is_an_error_message(self):
        for fields, text in (({"shell": "/none"}, "cannot run /none"), ({"cwd": "/none"}, "/none"),
                             ({"command": None}, "command is required"),
                             ({"timeout_seconds": "x"}, "timeout_seconds must be a number"),
                             ({"env": {"A": None}}, "env must be a string"),
                             ({"command_id": "x" * 129}, "command_id is too long"),
                             ({"pty": 1}, "pty must be true or false"),
                             ({"pty": True, "cols": 0}, "cols is out of range"),
                             ({"pty": True, "rows": 65536}, "rows is out of range"),
                             ({"pty": True, "rows": "9"}, "rows must be a number")):
            with self.box.socket() as ws:
                ws.send(**{"type": "execute", "command": "true", **fields})
                messages, code = ws.rest()
            self.assertEqual(([m["type"] for m in messages], code), (["error"], 1000), fields)
            self.assertEqual(messages[0]["error_type"], "CommandError")
            self.assertIn(text, messages[0]["error"])

    def test_pings_are_answered(self):
        with self.box.started("sleep 0.5") as (ws, _):
            ws.send_frame(wire.PING, b"are you there")
            self.assertEqual(ws.frame(), (wire.PONG, b"are you there"))
            ws.send_frame(wire.PING)
            self.assertEqual(ws.frame(), (wire.PONG, b""))

    def test_a_flood_of_pings_does_not_pile_up(self):
        agent = self.box.agent()
        before = memory(agent, "VmRSS")
        with self.box.started("sleep 2", options={"receive_buffer": 4096}) as (ws, _):
            frame = b"\x89\xfd\x00\x00\x00\x00" + b"p" * 125
            ws.socket.settimeout(5)
            try:
                for _ in range(200):
                    ws.socket.sendall(frame * 400)
            except TimeoutError:
                pass
            after = memory(agent, "VmRSS")
        if not SANITIZED:
            self.assertLess(after - before, 4 << 20)
        self.assertEqual(self.box.output("echo ok"), "ok\n")


class Reconnecting(WithServer):
    def test_a_running_command_goes_on_from_the_offsets(self):
        with self.box.started("printf 12345; printf abc >&2; read x; echo $x") as (ws, started):
            got = [ws.receive(), ws.receive()]
        self.assertEqual({(m["type"], m["data"]) for m in got},
                         {("stdout", "12345"), ("stderr", "abc")})
        with self.box.socket() as ws:
            ws.send(type="reconnect", command_id=started["command_id"], stdout_offset=3,
                    stderr_offset=3)
            self.assertEqual(ws.receive(), started)
            self.assertEqual(ws.receive(), {"type": "stdout", "data": "45", "offset": 3})
            ws.send(type="input", data="x\n")
            self.assertEqual(ws.rest(), ([{"type": "stdout", "data": "x\n", "offset": 5},
                                          {"type": "exit", "exit_code": 0}], 1000))

    def test_an_ended_command_can_be_read_again(self):
        with self.box.started("echo hello; exit 5") as (ws, started):
            ws.rest()
        for offset, data in (0, "hello\n"), (2, "llo\n"), (6, None), (1000, None):
            messages, code = self.box.reconnect(started["command_id"], offset)
            expected = [started] + ([{"type": "stdout", "data": data, "offset": offset}]
                                    if data else []) + [{"type": "exit", "exit_code": 5}]
            self.assertEqual((messages, code), (expected, 1000))

    def test_an_error_can_be_read_again(self):
        with self.box.started("sleep 9", timeout_seconds=0.1) as (ws, started):
            ws.rest()
        self.assertEqual(self.box.reconnect(started["command_id"])[0][-1]["error_type"],
                         "CommandTimeout")

    def test_offsets_inside_a_character_go_back_to_its_start(self):
        with self.box.started("printf 'a\u20acb'") as (ws, started):
            ws.rest()
        for offset, start, data in (1, 1, "\u20acb"), (2, 1, "\u20acb"), (3, 1, "\u20acb"), \
                (4, 4, "b"):
            self.assertEqual(self.box.reconnect(started["command_id"], offset)[0][1],
                             {"type": "stdout", "data": data, "offset": start})

    def test_without_a_client_the_last_output_is_kept(self):
        text = "".join(f"{i:06}\u20ac" for i in range(400000))
        wire.upload(self.box.url, "/tmp/long", text.encode())
        with self.box.started("read x; cat /tmp/long; sleep 0.1") as (ws, started):
            ws.send(type="input", data="\n")
        time.sleep(1)
        messages, _ = self.box.reconnect(started["command_id"])
        first = next(m["offset"] for m in messages if m["type"] == "stdout")
        size = len(text.encode())
        self.assertGreaterEqual(size - first, (1 << 20) - 3)
        self.assertLessEqual(size - first, 1 << 20)
        self.assertEqual(joined(messages, "stdout"), text.encode()[first:].decode())

    def test_several_clients_see_the_same(self):
        with self.box.started("read x; seq 1 100000") as (ws, started), \
                self.box.socket() as other, self.box.socket() as third:
            for late in other, third:
                late.send(type="reconnect", command_id=started["command_id"], stdout_offset=0,
                          stderr_offset=0)
                self.assertEqual(late.receive(), started)
            other.send(type="input", data="\n")
            results = [None] * 3

            def read(index, client):
                results[index] = joined(client.rest()[0], "stdout")
            threads = [threading.Thread(target=read, args=pair)
                       for pair in enumerate((ws, other, third))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual(results, ["".join(f"{i}\n" for i in range(1, 100001))] * 3)

    def test_an_execute_with_a_known_id_attaches(self):
        for name in "0192f1aa-bbcc-7def-8123-456789abcdef", "0192f1aabbcc7def8123456789abcdee", \
                "x y":
            with self.box.started("echo run >> /tmp/runs; echo one; sleep 0.3",
                                  command_id=name) as (_, first):
                self.assertEqual(first["command_id"], name)
            for _ in range(2):
                with self.box.started("echo run >> /tmp/runs; echo two",
                                      command_id=name) as (ws, again):
                    self.assertEqual(again, first)
                    self.assertEqual(ws.rest()[0], [
                        {"type": "stdout", "data": "one\n", "offset": 0},
                        {"type": "exit", "exit_code": 0}])
        self.assertEqual(self.box.output("wc -l < /tmp/runs"), "3\n")

    def test_unknown_commands_and_expired_ones_are_errors(self):
        messages, code = self.box.reconnect("none")
        self.assertEqual((messages[0]["error_type"], code), ("CommandNotFound", 1000))
        with self.box.started("true", ttl_seconds=0, command_id="short") as (ws, _):
            ws.rest()
        self.assertTrue(wait_until(
            lambda: self.box.reconnect("short")[0][0]["type"] == "error"))
        self.assertEqual(self.box.reconnect("short")[0][0]["error_type"], "SessionExpired")
        with self.box.socket() as ws:
            ws.send(type="execute", command="echo again", command_id="short")
            self.assertEqual(ws.rest()[0][0]["error_type"], "SessionExpired")
        for fields in {}, {"command_id": 1}, {"command_id": "x", "stdout_offset": -1}, \
                {"command_id": "x", "stderr_offset": "1"}:
            with self.box.socket() as ws:
                ws.send(type="reconnect", **fields)
                self.assertEqual(ws.rest()[0][0]["error_type"], "CommandError")

    def test_the_time_to_live_starts_at_the_end(self):
        with self.box.started("sleep 0.4; echo a", ttl_seconds=0.5) as (ws, started):
            ws.rest()
        self.assertEqual(self.box.reconnect(started["command_id"])[0][-1]["type"], "exit")
        time.sleep(0.7)
        self.assertEqual(self.box.reconnect(started["command_id"])[0][-1]["error_type"],
                         "SessionExpired")

    def test_a_command_without_clients_is_killed_after_its_idle_timeout(self):
        with self.box.started("sleep 100.7", idle_timeout_seconds=0.5) as (ws, started):
            time.sleep(0.7)  # a client pauses the timer
            ws.send_frame(wire.PING, b"x")
            self.assertEqual(ws.frame(), (wire.PONG, b"x"))
        self.assertIn("sleep", self.box.output("pgrep -fl 'sleep [1]00.7'"))
        self.assertTrue(wait_until(lambda: not self.box.output("pgrep -f 'sleep [1]00.7'"), 3))
        self.assertEqual(self.box.reconnect(started["command_id"])[0][-1],
                         {"type": "exit", "exit_code": 137})

    def test_an_idle_timeout_of_minus_1_is_never(self):
        with self.box.started("sleep 1; echo a", idle_timeout_seconds=-1) as (_, started):
            pass
        time.sleep(0.3)
        self.assertEqual(joined(self.box.reconnect(started["command_id"])[0], "stdout"), "a\n")

    def test_kill_on_disconnect_waits_for_the_last_client(self):
        with self.box.started("sleep 100.8", kill_on_disconnect=True) as (ws, started):
            with self.box.socket() as other:
                other.send(type="reconnect", command_id=started["command_id"])
                self.assertEqual(other.receive(), started)
            time.sleep(0.2)
            self.assertTrue(self.box.output("pgrep -f 'sleep [1]00.8'"))
            ws.send_frame(wire.CLOSE, b"\x03\xe8")
            self.assertTrue(wait_until(lambda: not self.box.output("pgrep -f 'sleep [1]00.8'"), 2))

    def test_a_close_of_the_client_is_answered_and_the_command_runs_on(self):
        for payload in b"", b"\x03\xe8", b"\x03\xf3bye":
            with self.box.started("sleep 0.3; echo a") as (ws, started):
                ws.send_frame(wire.CLOSE, payload)
                with self.assertRaises(Closed) as closed:
                    ws.receive()
                self.assertEqual(closed.exception.code,
                                 int.from_bytes(payload[:2], "big") if payload else 1005)
                self.assertEqual(wire.everything(ws.socket), b"")
            self.assertEqual(joined(self.box.reconnect(started["command_id"])[0], "stdout"), "a\n")

    def test_two_hundred_commands_run_at_once(self):
        sockets = []
        try:
            for i in range(200):
                ws = self.box.socket()
                sockets.append(ws)
                ws.send(type="execute", command=f"read x; echo {i}")
            for ws in sockets:
                self.assertEqual(ws.receive()["type"], "started")
            for ws in sockets:
                ws.send(type="input", data="\n")
            self.assertEqual([joined(ws.rest()[0], "stdout") for ws in sockets],
                             [f"{i}\n" for i in range(200)])
        finally:
            for ws in sockets:
                ws.socket.close()


if __name__ == "__main__":
    main(__name__)
