#!/usr/bin/env python3
"""Commands over WebSocket, as build/sandboxd runs them: streams, terminals, reconnecting, reload,
faults on purpose. Reports in TAP; the last line is "N passed, N failed"."""

import concurrent.futures
import hashlib
import json
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
from wire import Closed, Refused, joined  # noqa: E402

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


PROMPT = r"bash-[0-9.]+[$#] $"


# ---- helpers ----

class Terminal:
    """A command on a terminal, and what it has shown so far."""

    def __init__(self, box, command, **fields):
        self.ws = box.socket()
        self.ws.send(type="execute", command=command, pty=True, **fields)
        self.started = self.ws.receive()
        assert self.started["type"] == "started", self.started
        self.shown, self.seen, self.last = "", 0, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ws.socket.close()

    def take(self):
        self.last = self.ws.receive()
        if "data" in self.last:
            assert self.last["type"] == "stdout", self.last
            assert self.last["offset"] == len(self.shown.encode()), self.last
            self.shown += self.last["data"]

    def expect(self, pattern):
        """Waits until something new matches."""
        while not (match := re.compile(pattern).search(self.shown, self.seen)):
            try:
                self.take()
            except (Closed, TimeoutError) as error:
                raise AssertionError(f"{pattern} does not come: {self.shown!r}") from error
        self.seen = match.end()
        return match

    def type(self, text):
        self.ws.send(type="input", data=text)

    def end(self):
        """The last message."""
        while not self.last or self.last["type"] not in ("exit", "error"):
            self.take()
        return self.last


class Follower:
    """A client that comes back whenever it is disconnected, as the official ones do."""

    def __init__(self, box, command=None, command_id=None, pause=0, **fields):
        self.box, self.command_id, self.pause = box, command_id, pause
        self.text = {"stdout": [], "stderr": []}
        self.at = {"stdout": 0, "stderr": 0}
        self.codes, self.attempts, self.last = [], 0, None
        if command:
            self.first = {"type": "execute", "command": command, "command_id": command_id, **fields}
            self.command_id = None

    def connect(self):
        """One connection. True when the command is over."""
        with self.box.socket() as ws:
            if self.command_id:
                ws.send(type="reconnect", command_id=self.command_id,
                        stdout_offset=self.at["stdout"], stderr_offset=self.at["stderr"])
            else:
                ws.send(**self.first)
            while True:
                self.last = message = ws.receive()
                if message["type"] == "started":
                    self.command_id = message["command_id"]
                elif message["type"] in self.text:
                    data = message["data"].encode()
                    skip = min(self.at[message["type"]] - message["offset"], len(data))
                    assert skip >= 0, f"{-skip} bytes of {message['type']} were lost"
                    self.text[message["type"]].append(data[skip:])
                    self.at[message["type"]] += len(data) - skip
                else:
                    return True
                if self.pause:
                    time.sleep(self.pause)

    def run(self, attempts=1000):
        """The last message. How connections ended is in codes: a close code, None or "reset"."""
        while self.attempts < attempts:
            self.attempts += 1
            try:
                if self.connect():
                    return self.last
            except Closed as closed:
                self.codes.append(closed.code)
            except ConnectionError:
                self.codes.append("reset")
        raise AssertionError(f"not over after {attempts} connections: {self.codes[-5:]}")

    def digest(self, stream="stdout"):
        return hashlib.sha256(b"".join(self.text[stream])).hexdigest()


def together(functions):
    """Runs them all at once; returns their results."""
    with concurrent.futures.ThreadPoolExecutor(len(functions)) as pool:
        return [task.result() for task in [pool.submit(function) for function in functions]]


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def numbers(first, last):
    """What seq prints."""
    return "".join(f"{i}\n" for i in range(first, last + 1))


# ---- commands ----

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

# ---- terminals ----

class Terminals(WithServer):
    def test_a_terminal_is_one(self):
        with Terminal(self.box, "tty; tty <&2; stty size; echo $TERM >&2; "
                                "ps -o tty= -p $$; exit 3") as terminal:
            self.assertEqual(terminal.end(), {"type": "exit", "exit_code": 3})
            self.assertRegex(terminal.shown, r"^(/dev/pts/\d+)\r\n\1\r\n24 80\r\nxterm-256color\r\n"
                                             r"pts/\d+ *\r\n$")
            with self.assertRaises(Closed) as closed:
                terminal.ws.receive()
            self.assertEqual(closed.exception.code, 1000)

    def test_its_size_and_name_are_the_clients(self):
        with Terminal(self.box, "stty size; echo $TERM", cols=65535, rows=1,
                      env={"TERM": "dumb"}) as terminal:
            terminal.end()
            self.assertEqual(terminal.shown, "1 65535\r\ndumb\r\n")

    def test_without_one_there_is_none(self):
        self.assertEqual(self.box.run("tty; env | grep -c TERM", pty=True)[1], "not a tty\n0\n")
        with self.box.started("tty; exec 3</dev/tty; echo $?; read x; echo $x",
                              pty=False) as (ws, _):
            ws.send(type="resize", cols=100, rows=100)
            ws.send(type="input", data="on\n")
            messages, code = ws.rest()
        self.assertEqual((joined(messages, "stdout"), code), ("not a tty\n1\non\n", 1000))

    def test_a_resize_is_told_to_the_command(self):
        program = ("import os, signal; signals = {signal.SIGWINCH}; "
                   "signal.pthread_sigmask(signal.SIG_BLOCK, signals); print('ready', flush=True)\n"
                   "while signal.sigwait(signals): print(*os.get_terminal_size(), flush=True)")
        with Terminal(self.box, f'exec python3 -c "{program}"') as terminal:
            terminal.expect("ready")
            for fields in {}, {"cols": 100}, {"cols": 0, "rows": 10}, {"cols": 10, "rows": 65536}, \
                    {"cols": -1, "rows": 1}, {"cols": "90", "rows": 10}, {"cols": 1.5, "rows": 10}:
                terminal.ws.send(type="resize", **fields)
            for columns, rows in (132, 50), (1, 65535), (65535, 1):
                terminal.ws.send(type="resize", cols=columns, rows=rows)
                terminal.expect(rf"\b{columns} {rows}\r\n")
            self.assertEqual(terminal.shown.count("\r\n"), 4)
            terminal.ws.send(type="kill")
            self.assertEqual(terminal.end()["exit_code"], 137)

    def expect_foreground(self, command):
        """Waits until the command has its terminal, and so gets the keys that are signals."""
        self.assertTrue(wait_until(lambda: re.search(
            rf"^\S*\+\S* +{re.escape(command)}$", self.box.output("ps ax -o stat= -o args="), re.M)))

    def test_bash_controls_jobs(self):
        with Terminal(self.box, "bash --norc -i") as terminal:
            terminal.expect(PROMPT)
            self.assertNotIn("bash:", terminal.shown)  # no warning
            terminal.type("sleep 100.21\n")
            self.assertTrue(wait_until(lambda: self.box.output("pgrep -f 'sleep [1]00.21'")))
            terminal.type("\x1a")
            terminal.expect(r"\[1\]\+  Stopped +sleep 100.21")
            terminal.type("bg\n")
            terminal.expect(r"\[1\]\+ sleep 100.21 &")
            terminal.type("jobs\n")
            terminal.expect(r"\[1\]\+  Running")
            terminal.type("fg\n")
            self.expect_foreground("sleep 100.21")
            terminal.type("\x03")
            terminal.expect(r"\^C\r\n")
            terminal.expect(PROMPT)
            terminal.type("echo code=$?\n")
            terminal.expect("code=130\r\n")
            terminal.type("exit 7\n")
            self.assertEqual(terminal.end(), {"type": "exit", "exit_code": 7})

    def test_keys_reach_the_foreground_and_only_that(self):
        with Terminal(self.box, "trap 'echo caught' INT; cat; echo after; read x; echo got $x") \
                as terminal:
            terminal.type("one\n")
            terminal.expect("one\r\none\r\n")
            terminal.type("\x03")
            terminal.expect("caught\r\nafter\r\n")
            terminal.type("\x04")
            terminal.expect("got\r\n")
            self.assertEqual(terminal.end()["exit_code"], 0)
        with Terminal(self.box, "sleep 100.22") as terminal:
            self.expect_foreground("sleep 100.22")
            terminal.type("\x03")
            self.assertEqual(terminal.end()["exit_code"], 130)
        with Terminal(self.box, "sleep 100.22") as terminal:
            self.expect_foreground("sleep 100.22")  # before, bash ignores this one
            terminal.type("\x1c")
            self.assertEqual(terminal.end()["exit_code"], 131)

    def test_python_talks(self):
        with Terminal(self.box, "python3") as terminal:
            terminal.expect(">>> ")
            terminal.type("import sys; print(sys.stdin.isatty(), 6 * 7)\n")
            terminal.expect("True 42\r\n.*>>> ")
            terminal.type("print('begun'); exec('while True: pass')\n")
            terminal.expect("\nbegun\r\n")
            terminal.type("\x03")
            terminal.expect("KeyboardInterrupt\r\n.*>>> ")
            terminal.type("raise SystemExit(9)\n")
            self.assertEqual(terminal.end()["exit_code"], 9)

    def test_an_editor_edits(self):
        if self.box.run("command -v vi")[0]:
            self.skipTest("vi is not installed")
        with Terminal(self.box, "vi -u NONE /tmp/edited", cols=40, rows=10) as terminal:
            terminal.expect("edited")
            terminal.type("ifirst\rsecond \u20ac\x1b")
            terminal.expect("second")
            terminal.ws.send(type="resize", cols=60, rows=20)
            terminal.type(":set columns? lines?\r")
            terminal.expect("columns=60")
            terminal.expect("lines=20")
            terminal.type("\r:wq\r")
            self.assertEqual(terminal.end()["exit_code"], 0)
        self.assertEqual(self.box.output("cat /tmp/edited"), "first\nsecond \u20ac\n")

    def test_top_shows_processes(self):
        if self.box.run("command -v top")[0]:
            self.skipTest("top is not installed")
        with Terminal(self.box, "top -b -n 1", cols=100) as terminal:
            self.assertEqual(terminal.end()["exit_code"], 0)
            self.assertIn("top -", terminal.shown)
        with Terminal(self.box, "top", cols=100) as terminal:
            terminal.expect("PID")
            terminal.type("q")
            self.assertEqual(terminal.end()["exit_code"], 0)

    def test_erasing_takes_whole_characters(self):
        with Terminal(self.box, "read x; printf %s $x | wc -c") as terminal:
            terminal.type("\u20ac\u20ac\x7f\n")
            terminal.end()
            self.assertEqual(terminal.shown.split("\r\n")[1], "3")

    def test_the_end_of_input_is_typed(self):
        for typed, got in ("abc\n", "abc\r\n"), ("abc", "abc"), ("", ""), ("a\x04", "a"):
            with Terminal(self.box, "stty -echo; echo ready; cat; echo; echo end; cat; echo $?") \
                    as terminal:
                terminal.expect("ready\r\n")
                if typed:
                    terminal.type(typed)
                terminal.ws.send(type="close_stdin")
                terminal.type("too late\n")
                terminal.expect(re.escape(f"{got}\r\nend\r\n"))
                time.sleep(0.1)
                self.assertEqual(terminal.shown, f"ready\r\n{got}\r\nend\r\n")
        with Terminal(self.box, "stty eof x; echo ready; cat") as terminal:
            terminal.expect("ready")
            terminal.ws.send(type="close_stdin")
            self.assertEqual(terminal.end()["exit_code"], 0)
        with Terminal(self.box, "cat; echo end", close_stdin=True) as terminal:
            self.assertEqual(terminal.end()["exit_code"], 0)
            self.assertEqual(terminal.shown, "end\r\n")

    def test_exit_codes_are_as_without_one(self):
        for command, code in ("true", 0), ("exit 255", 255), ("kill -TERM $$", 143), \
                ("kill -KILL $$", 137):
            with Terminal(self.box, command) as terminal:
                self.assertEqual(terminal.end(), {"type": "exit", "exit_code": code})
        with Terminal(self.box, "echo a; sleep 100.23", timeout_seconds=0.3) as terminal:
            self.assertEqual(terminal.end()["error_type"], "CommandTimeout")
            self.assertEqual(terminal.shown, "a\r\n")

    def test_a_command_may_let_go_of_its_terminal_and_take_it_again(self):
        with Terminal(self.box, "exec <&- >&- 2>&-; sleep 0.3; exec <>/dev/tty >&0 2>&0; tty; "
                                "read x; echo $x") as terminal:
            terminal.expect("/dev/tty")
            terminal.type("yes\n")
            terminal.expect("yes\r\nyes")
            self.assertEqual(terminal.end()["exit_code"], 0)

    def test_who_ignores_hangups_lives_on_and_does_not_delay_the_end(self):
        start = time.monotonic()
        with Terminal(self.box, "(trap '' HUP; exec sleep 100.24) & trap '' HUP; sleep 100.25 & "
                                "sleep 100.26 & sleep 0.2; echo end; exit 4") as terminal:
            self.assertEqual(terminal.end(), {"type": "exit", "exit_code": 4})
            self.assertEqual(terminal.shown, "end\r\n")
        self.assertLess(time.monotonic() - start, 5)
        self.assertEqual(len(self.box.output("pgrep -f 'sleep [1]00.2[456]'").split()), 3)
        self.box.output("pkill -f 'sleep [1]00.2[456]'")

    def test_a_hangup_comes_with_the_end(self):
        with Terminal(self.box, "sleep 100.27 & sleep 0.1; echo end") as terminal:
            self.assertEqual(terminal.end()["exit_code"], 0)
        self.assertTrue(wait_until(lambda: not self.box.output("pgrep -f 'sleep [1]00.27'")))

    def test_children_that_keep_writing_do_not_delay_the_end(self):
        start = time.monotonic()
        with Terminal(self.box, "trap '' HUP; yes 100.28 & sleep 0.1") as terminal:
            self.assertEqual(terminal.end()["exit_code"], 0)
        self.assertLess(time.monotonic() - start, 15)
        self.assertTrue(self.box.output("pgrep -f '[1]00.28'"))
        self.box.output("pkill -f '[1]00.28'")

    def test_kill_ends_all_jobs_of_a_shell(self):
        with Terminal(self.box, "bash --norc -i") as terminal:
            terminal.expect(PROMPT)
            terminal.type("sleep 100.31 & sleep 100.31 | cat &\n")
            terminal.type("(trap '' HUP INT TERM; sleep 100.31; sleep 100.31)\n")
            self.assertTrue(wait_until(
                lambda: len(self.box.output("pgrep -fx 'sleep [1]00.31'").split()) == 3))
            start = time.monotonic()
            terminal.ws.send(type="kill")
            self.assertEqual(terminal.end(), {"type": "exit", "exit_code": 137})
            self.assertLess(time.monotonic() - start, 2)
        self.assertEqual(self.box.output("pgrep -f '[1]00.31'"), "")

    def test_output_is_whole_whether_the_client_is_fast_or_slow(self):
        expected = numbers(1, 200000).replace("\n", "\r\n")
        for options in {}, {"receive_buffer": 4096}:
            with self.box.started("seq 1 200000", options, pty=True) as (ws, _):
                time.sleep(0.5 if options else 0)
                messages, code = ws.rest()
            self.assertEqual((digest(joined(messages, "stdout")), code), (digest(expected), 1000))

    def test_input_is_whole(self):
        text = "0123456789 " * 20 + "\n"
        with Terminal(self.box, "stty -echo; echo ready; sleep 0.2; sha256sum") as terminal:
            terminal.expect("ready")
            for _ in range(100):
                terminal.type(text * 30)
            terminal.ws.send(type="close_stdin")
            terminal.end()
            self.assertIn(digest(text * 3000), terminal.shown)

    def test_a_client_can_come_back_to_its_terminal(self):
        with Terminal(self.box, "bash --norc -i") as terminal:
            terminal.expect(PROMPT)
            terminal.type("x=kept\n")
            terminal.expect(PROMPT)
        with self.box.socket() as ws:
            ws.send(type="reconnect", command_id=terminal.started["command_id"],
                    stdout_offset=len(terminal.shown.encode()))
            self.assertEqual(ws.receive(), terminal.started)
            terminal.ws = ws
            ws.send(type="resize", cols=90, rows=30)
            terminal.type("echo $x; stty size\n")
            terminal.expect("kept\r\n30 90\r\n")
            terminal.type("exit\n")
            self.assertEqual(terminal.end()["exit_code"], 0)

    def test_a_hundred_at_once(self):
        terminals = [Terminal(self.box, f"read x; tty; echo {i} $x") for i in range(100)]
        try:
            for terminal in terminals:
                terminal.type("go\n")
            names = set()
            for i, terminal in enumerate(terminals):
                names.add(terminal.expect(rf"(/dev/pts/\d+)\r\n{i} go\r\n").group(1))
                self.assertEqual(terminal.end()["exit_code"], 0)
            self.assertEqual(len(names), 100)
        finally:
            for terminal in terminals:
                terminal.ws.socket.close()
        self.assertTrue(wait_until(lambda: self.box.output("ls /dev/pts") == "ptmx\n"))

    def test_without_isolation_too(self):
        with Server("--no-isolation") as server, server.create() as box:
            with Terminal(box, "bash --norc -i") as terminal:
                terminal.expect(PROMPT)
                self.assertNotIn("bash:", terminal.shown)
                for number, end in (100.32, "\x03"), (100.33, None):
                    terminal.type(f"sleep {number}\n")
                    self.assertTrue(wait_until(lambda: box.output(f"pgrep -fx 'sleep {number}'")))
                    if end:
                        terminal.type(end)
                        terminal.expect(PROMPT)
                terminal.ws.send(type="kill")
                self.assertEqual(terminal.end()["exit_code"], 137)
                self.assertEqual(box.output("pgrep -fx 'sleep 100.3[23]'"), "")


# ---- kill ----

class Kill(WithServer):
    def count(self, name):
        return len(self.box.output(f"pgrep -fx 'sleep [{name[0]}]{name[1:]}'").split())

    def test_jobs_in_groups_of_their_own_are_killed(self):
        with self.box.started("set -m; sleep 100.41 & (sleep 100.41; true) & "
                              "bash -c 'bash -c \"sleep 100.41; true\"; true' & echo ready; wait") \
                as (ws, _):
            ws.receive()
            self.assertTrue(wait_until(lambda: self.count("100.41") == 3))
            start = time.monotonic()
            ws.send(type="kill")
            self.assertEqual(ws.rest(), ([{"type": "exit", "exit_code": 137}], 1000))
            self.assertLess(time.monotonic() - start, 2)
        self.assertEqual(self.count("100.41"), 0)

    def test_who_made_a_session_of_its_own_lives_on(self):
        with self.box.started("setsid sleep 100.42 & sleep 100.43") as (ws, _):
            self.assertTrue(wait_until(lambda: self.count("100.42") == 1))
            start = time.monotonic()
            ws.send(type="kill")
            self.assertEqual(ws.rest()[0][-1], {"type": "exit", "exit_code": 137})
            self.assertLess(time.monotonic() - start, 2)
        self.assertEqual((self.count("100.42"), self.count("100.43")), (1, 0))
        self.box.output("pkill -f 'sleep [1]00.42'")

    def test_all_limits_kill_the_whole_session(self):
        command = "set -m; sleep 100.44 & sleep 100.44"
        self.assertEqual(self.box.stream(command, timeout_seconds=0.5)[0][-1]["error_type"],
                         "CommandTimeout")
        self.assertEqual(self.count("100.44"), 0)
        for fields in {"idle_timeout_seconds": 0.2}, {"kill_on_disconnect": True}:
            with self.box.started(command, **fields):
                self.assertTrue(wait_until(lambda: self.count("100.44") == 2))
            self.assertTrue(wait_until(lambda: self.count("100.44") == 0), fields)

    def test_processes_that_are_stopped_or_fork_are_killed(self):
        with self.box.started("set -m; for i in {1..5}; do (while :; do /bin/true; done) & done; "
                              "sleep 100.45 & sleep 0.3; kill -STOP $! $$") as (ws, started):
            self.assertTrue(wait_until(lambda: self.box.output(
                f"ps -o state= -p {started['pid']}").strip() == "T"))
            ws.send(type="kill")
            self.assertEqual(ws.rest(), ([{"type": "exit", "exit_code": 137}], 1000))
        self.assertTrue(wait_until(
            lambda: self.box.output("ps -e -o pid= | wc -l").strip() == "4"),
            self.box.output("ps -e"))

    def test_a_hundred_at_once(self):
        sockets = [self.box.socket() for _ in range(100)]
        for ws in sockets:
            ws.send(type="execute", command="sleep 100.46 & wait")
        for ws in sockets:
            self.assertEqual(ws.receive()["type"], "started")
        for ws in sockets:
            ws.send(type="kill")
        for ws in sockets:
            self.assertEqual(ws.rest(), ([{"type": "exit", "exit_code": 137}], 1000))
            ws.socket.close()
        self.assertEqual(self.count("100.46"), 0)


# ---- input that is not read ----

class Input(WithServer):
    def test_kill_arrives_behind_input_that_nobody_reads(self):
        for size, count in (1 << 20, 7), (1, 20000):
            with self.box.started("sleep 100.51") as (ws, _):
                for _ in range(count):
                    ws.send(type="input", data="x" * size)
                ws.send_frame(wire.PING, b"there")
                self.assertEqual(ws.frame(), (wire.PONG, b"there"))
                ws.send(type="kill")
                self.assertEqual(ws.rest(), ([{"type": "exit", "exit_code": 137}], 1000))

    def fill(self, ws, data):
        """Sends input until nobody takes it any more."""
        ws.socket.settimeout(0.5)
        ws.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        payload = json.dumps({"type": "input", "data": data}).encode()
        size = struct.pack(">BH", 0xfe, len(payload)) if len(payload) > 125 else \
            bytes([0x80 | len(payload)])
        frame = b"\x81" + size + b"\0\0\0\0" + payload
        with self.assertRaises(TimeoutError):
            for _ in range(50 << 20):
                ws.socket.sendall(frame)

    def test_input_without_end_has_to_wait(self):
        agent = self.box.agent()
        for data in "x" * 60000, "x" * 20:
            before = memory(agent, "VmRSS")
            with self.box.started("sleep 100.52") as (ws, _):
                self.fill(ws, data)
                if not SANITIZED:
                    self.assertLess(memory(agent, "VmRSS") - before, 24 << 20)
            self.assertEqual(self.box.output("echo ok"), "ok\n")
            self.box.output("pkill -f 'sleep [1]00.52'")

    def send_too_much(self, ws):
        """More than the agent takes, but the rest is still taken by the kernel."""
        size = 65000
        for _ in range((8 << 20) // size + 2):
            ws.send(type="input", data="x" * size)

    def test_a_client_that_waits_is_missed_when_it_goes(self):
        with self.box.started("sleep 100.53", kill_on_disconnect=True) as (ws, _):
            self.send_too_much(ws)
            time.sleep(0.3)
            self.assertTrue(self.box.output("pgrep -f 'sleep [1]00.53'"))
        self.assertTrue(wait_until(lambda: not self.box.output("pgrep -f 'sleep [1]00.53'")))

    def test_a_kill_before_the_end_of_the_connection_is_read(self):
        with self.box.started("sleep 100.54") as (ws, started):
            self.send_too_much(ws)
            ws.send(type="kill")
            time.sleep(0.3)
            self.assertTrue(self.box.output("pgrep -f 'sleep [1]00.54'"))
        self.assertTrue(wait_until(lambda: not self.box.output("pgrep -f 'sleep [1]00.54'")))
        self.assertEqual(self.box.reconnect(started["command_id"])[0][-1],
                         {"type": "exit", "exit_code": 137})

    def test_reading_goes_on_when_the_command_reads(self):
        text = "0123456789abcde\n" * 65536
        with self.box.started("sleep 1; sha256sum; sleep 0.2") as (ws, _):
            for _ in range(20):
                ws.send(type="input", data=text)
            ws.send(type="close_stdin")
            self.assertEqual(joined(ws.rest()[0], "stdout").split()[0], digest(text * 20))


# ---- output that is kept ----

class Rings(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--ring-bytes", "65536", "--stall-seconds", "2.5")
        cls.box = cls.server.create()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def test_a_slow_client_gets_all_though_the_ring_is_small(self):
        with self.box.started("seq 1 400000; seq 1 300000 >&2",
                              {"receive_buffer": 4096}) as (ws, _):
            time.sleep(1)
            messages, code = ws.rest()
        self.assertEqual(code, 1000)
        self.assertEqual(digest(joined(messages, "stdout")), digest(numbers(1, 400000)))
        self.assertEqual(digest(joined(messages, "stderr")), digest(numbers(1, 300000)))

    def test_the_slowest_client_counts(self):
        with self.box.started("read x; seq 1 400000") as (ws, started):
            slow = Follower(self.box, command_id=started["command_id"], pause=0.01)
            fast = Follower(self.box, command_id=started["command_id"])
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                tasks = [pool.submit(client.run) for client in (slow, fast)]
                self.assertTrue(wait_until(lambda: slow.last and fast.last))
                ws.send(type="input", data="\n")
                self.assertEqual(digest(joined(ws.rest()[0], "stdout")), digest(numbers(1, 400000)))
                for task in tasks:
                    self.assertEqual(task.result(), {"type": "exit", "exit_code": 0})
        for client in slow, fast:
            self.assertEqual((client.attempts, client.digest()), (1, digest(numbers(1, 400000))))

    def test_without_a_client_exactly_the_rest_is_lost(self):
        text = numbers(1, 100000)
        with self.box.started("read x; seq 1 1000; read x; seq 1001 100000; seq 1 9 >&2; "
                              "echo > /tmp/over") as (ws, started):
            ws.send(type="input", data="\n\n")
        self.assertTrue(wait_until(lambda: self.box.run("rm /tmp/over")[0] == 0))
        for offset in 0, 5, len(text) - 65537:
            messages, _ = self.box.reconnect(started["command_id"], offset, 18)
            self.assertEqual(messages[0], started)
            self.assertEqual(messages[1]["offset"], len(text) - 65536)
            self.assertEqual(joined(messages, "stdout"), text[-65536:])
        for offset in len(text) - 65536, len(text) - 65535, len(text) - 1:
            messages, _ = self.box.reconnect(started["command_id"], offset, 4)
            self.assertEqual((messages[1]["offset"], joined(messages, "stdout")),
                             (offset, text[offset:]))
            self.assertEqual(joined(messages, "stderr"), numbers(3, 9))

    def test_a_client_that_takes_nothing_is_disconnected(self):
        # More than all buffers on the way to it.
        command = ("read x; head -c 20000000 /dev/zero | tr '\\0' x; "
                   "head -c 100 /dev/zero | tr '\\0' y")
        with self.box.started(command, {"receive_buffer": 4096}) as (stuck, started), \
                self.box.socket() as other:
            other.send(type="reconnect", command_id=started["command_id"])
            self.assertEqual(other.receive(), started)
            start = time.monotonic()
            other.send(type="input", data="\n")
            messages, code = other.rest()
            self.assertGreater(time.monotonic() - start, 2)
            self.assertLess(time.monotonic() - start, 20)
            self.assertEqual((len(joined(messages, "stdout")), code), (20000100, 1000))
            stuck.socket.settimeout(5)
            got = []
            with self.assertRaises((Closed, ConnectionError)) as ended:
                while True:
                    got.append(stuck.receive())
            self.assertIsNone(getattr(ended.exception, "code", None))
            self.assertLess(len(joined(got, "stdout")), 20000000)
        messages, code = self.box.reconnect(started["command_id"], 20000000)
        self.assertEqual((joined(messages, "stdout"), code), ("y" * 100, 1000))

    def test_a_client_that_takes_a_little_is_not(self):
        with self.box.started("head -c 20000000 /dev/zero | tr '\\0' x",
                              {"receive_buffer": 1 << 18}) as (ws, _):
            size, start = 0, time.monotonic()
            while time.monotonic() - start < 4:
                until = size + 200000
                while size < until:
                    size += len(ws.receive()["data"])
                time.sleep(0.25)
            self.assertLess(size, 10000000)
            messages, code = ws.rest()
        self.assertEqual((size + len(joined(messages, "stdout")), code), (20000000, 1000))

    def test_a_client_of_a_quiet_command_may_rest(self):
        # What its client does not take fits into the ring.
        command = "head -c 20000000 /dev/zero | tr '\\0' x; sleep 4; echo"
        with Server("--ring-bytes", "33554432", "--stall-seconds", "1") as server, \
                server.create() as box, box.started(command, {"receive_buffer": 4096}) as (ws, _):
            time.sleep(3)
            messages, code = ws.rest()
        self.assertEqual((len(joined(messages, "stdout")), code), (20000001, 1000))


class SmallestRing(unittest.TestCase):
    def test_characters_are_whole_and_bytes_exact(self):
        noise = bytes((i * i * 31 + i // 7) % 256 for i in range(200000))
        text = "a\u00e4\u20ac\U0001f600" * 5000
        with Server("--ring-bytes", "4096") as server, server.create() as box:
            wire.upload(box.url, "/tmp/noise", noise)
            wire.upload(box.url, "/tmp/text", text.encode())
            for path, expected in ("noise", noise.decode("utf-8", "replace")), ("text", text):
                for options in {}, {"receive_buffer": 4096}:
                    with box.started(f"cat /tmp/{path}; printf '\\xf0\\x9f\\x98'; sleep 0.2",
                                     options) as (ws, started):
                        time.sleep(0.3 if options else 0)
                        messages, code = ws.rest()
                    self.assertEqual((joined(messages, "stdout") == expected + "\ufffd", code),
                                     (True, 1000), (path, options))
                size = len(expected.encode()) + 3
                messages, _ = box.reconnect(started["command_id"], 1)
                offset = messages[1]["offset"]
                self.assertIn(size - offset, range(4093, 4097))
                self.assertEqual(joined(messages, "stdout"),
                                 (expected + "\ufffd").encode()[offset:].decode())

    def test_a_ring_is_whole_pages(self):
        with Server("--ring-bytes", "5000") as server, server.create() as box:
            with box.started("head -c 20000 /dev/zero | tr '\\0' x") as (ws, started):
                ws.rest()
            self.assertEqual(box.reconnect(started["command_id"])[0][1]["offset"], 20000 - 8192)


# ---- reconnecting ----

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

    def test_every_connect_starts_the_idle_time_anew(self):
        with self.box.started("sleep 100.71", idle_timeout_seconds=1.5) as (_, started):
            pass
        for connected in 0, 0, 2:
            time.sleep(0.9)
            with self.box.socket() as ws:
                ws.send(type="reconnect", command_id=started["command_id"])
                self.assertEqual(ws.receive(), started)
                time.sleep(connected)
        self.assertTrue(self.box.output("pgrep -f 'sleep [1]00.71'"))
        self.assertTrue(wait_until(lambda: not self.box.output("pgrep -f 'sleep [1]00.71'"), 5))

    def test_a_time_to_live_of_minus_1_is_for_ever(self):
        with self.box.started("echo a", ttl_seconds=-1, timeout_seconds=0.5,
                              idle_timeout_seconds=0.5) as (ws, started):
            ws.rest()
        time.sleep(1)
        self.assertEqual(joined(self.box.reconnect(started["command_id"])[0], "stdout"), "a\n")

    def test_an_execute_with_a_known_id_joins_the_running_command(self):
        with self.box.started("read x; echo $x; sleep 100.72", command_id="joined",
                              kill_on_disconnect=True) as (first, started):
            with self.box.started("echo other", command_id="joined") as (second, again):
                self.assertEqual(again, started)
                second.send(type="input", data="from the second\n")
                for ws in first, second:
                    self.assertEqual(ws.receive()["data"], "from the second\n")
            self.assertTrue(self.box.output("pgrep -f 'sleep [1]00.72'"))
        self.assertTrue(wait_until(lambda: not self.box.output("pgrep -f 'sleep [1]00.72'")))

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


# ---- reload ----

class Reload(WithServer):
    def reload(self):
        self.server.process.send_signal(signal.SIGHUP)

    def expect_reload(self, ws):
        """What comes before the close."""
        messages, code = ws.rest()
        self.assertEqual((code, ws.reason), (1001, b"the server reloads"))
        self.assertEqual(wire.everything(ws.socket), b"")
        return messages

    def test_commands_run_on_and_clients_come_back_to_them(self):
        command = ("for i in {1..60}; do seq 1 2000; seq 1 1000 >&2; sleep 0.02; done; "
                   "echo $$ >> /tmp/ran")
        clients = [Follower(self.box, command, command_id=f"command {i}", ttl_seconds=60)
                   for i in range(20)]
        clients += [Follower(self.box, command, command_id=f"command {i % 20}")
                    for i in range(10)]
        with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool:
            tasks = [pool.submit(client.run) for client in clients]
            for _ in range(3):
                time.sleep(0.5)
                self.reload()
            for task in tasks:
                self.assertEqual(task.result(), {"type": "exit", "exit_code": 0})
        for client in clients:
            self.assertEqual(client.digest(), digest(numbers(1, 2000) * 60))
            self.assertEqual(client.digest("stderr"), digest(numbers(1, 1000) * 60))
            self.assertEqual(set(client.codes), {1001})
        self.assertEqual(self.box.output("wc -l < /tmp/ran"), "20\n")

    def test_every_websocket_is_closed_and_nothing_else(self):
        other = self.server.create()
        with self.box.started("sleep 100.81") as (first, started), \
                other.started("sleep 100.82", pty=True) as (second, _), \
                self.box.socket() as silent, wire.dial(self.box.url) as http:
            http.sendall(b"POST /execute HTTP/1.1\r\nHost: x\r\nContent-Length: 39\r\n\r\n"
                         b'{"command": "sleep 1; ')
            with self.box.socket() as busy:
                busy.send(type="execute", command="echo never > /tmp/never")
                self.reload()
                self.expect_reload(busy)
            for ws in first, second, silent:
                self.expect_reload(ws)
            http.sendall(b'echo whole_body"}')
            answer = b""
            # The head and the body may come apart.
            while not answer.endswith(b"}") and (more := http.recv(10000)):
                answer += more
            self.assertTrue(answer.endswith(
                b'{"stdout":"whole_body\\n","stderr":"","exit_code":0}'), answer)
            self.assertEqual(self.server.call("GET", "/boxes").status, 200)
            self.assertTrue(self.box.output("pgrep -f 'sleep [1]00.81'"))
            self.assertTrue(other.output("pgrep -f 'sleep [1]00.82'"))
            with self.box.socket() as ws:
                ws.send(type="reconnect", command_id=started["command_id"])
                self.assertEqual(ws.receive(), started)
                ws.send(type="kill")
                self.assertEqual(ws.rest()[0], [{"type": "exit", "exit_code": 137}])
        with other:
            pass

    def test_output_waits_for_clients_to_come_back(self):
        # More than a ring, and than all that is on the way to the client.
        command = "read x; seq 1 2000000; echo > /tmp/written"
        for slow in False, True:
            with self.box.started(command, {"receive_buffer": 4096} if slow else None) \
                    as (ws, started):
                ws.send(type="input", data="\n")
                if slow:
                    time.sleep(0.5)
                self.reload()
                messages = self.expect_reload(ws)
            self.assertEqual(self.box.run("cat /tmp/written")[0], 1)
            got = joined(messages, "stdout")
            rest, code = self.box.reconnect(started["command_id"], len(got))
            self.assertEqual((digest(got + joined(rest, "stdout")), code),
                             (digest(numbers(1, 2000000)), 1000))
            self.assertEqual(self.box.run("rm /tmp/written")[0], 0)

    def test_a_command_does_not_wait_for_ever(self):
        with self.box.started("read x; seq 1 2000000; echo > /tmp/gone") as (writing, _), \
                self.box.started("sleep 100.83", kill_on_disconnect=True) as (ending, _):
            writing.send(type="input", data="\n")
            start = time.monotonic()
            self.reload()
            self.expect_reload(writing)
            self.expect_reload(ending)
        self.assertTrue(wait_until(lambda: self.box.run("cat /tmp/gone")[0] == 0, 20))
        self.assertGreater(time.monotonic() - start, 4)
        self.assertTrue(wait_until(lambda: not self.box.output("pgrep -f 'sleep [1]00.83'")))

    def test_kill_on_disconnect_waits_for_the_client(self):
        with self.box.started("sleep 100.84", kill_on_disconnect=True) as (ws, started):
            self.reload()
            self.expect_reload(ws)
        time.sleep(0.5)
        with self.box.socket() as ws:
            ws.send(type="reconnect", command_id=started["command_id"])
            self.assertEqual(ws.receive(), started)
            self.assertTrue(self.box.output("pgrep -f 'sleep [1]00.84'"))
        self.assertTrue(wait_until(lambda: not self.box.output("pgrep -f 'sleep [1]00.84'"), 3))

    def test_a_command_that_ended_meanwhile_is_not_forgotten(self):
        with self.box.started("sleep 0.7; echo end", ttl_seconds=0) as (ws, started):
            self.reload()
            self.assertEqual(self.expect_reload(ws), [])
        time.sleep(1.2)
        messages, _ = self.box.reconnect(started["command_id"])
        self.assertEqual((joined(messages, "stdout"), messages[-1]),
                         ("end\n", {"type": "exit", "exit_code": 0}))
        self.assertEqual(self.box.reconnect(started["command_id"])[0][0]["error_type"],
                         "SessionExpired")

    def test_many_at_once_and_none(self):
        with Server() as server:
            for _ in range(50):
                server.process.send_signal(signal.SIGHUP)
            server.call("POST", "/boxes", {"wait_for_ready": False})
            for _ in range(50):
                server.process.send_signal(signal.SIGHUP)
                time.sleep(0.002)
            self.assertEqual(server.create().output("echo ok"), "ok\n")
            self.assertEqual(server.stop(), 0)


# ---- dialects ----

class Dialects(unittest.TestCase):
    def test_the_old_one(self):
        with Server("--dialect", "2026-03") as server, server.create() as box:
            for command_id in "mine", "mine", 1, "x" * 200:
                with box.started("echo run >> /tmp/runs; echo a", command_id=command_id) \
                        as (ws, started):
                    self.assertRegex(started["command_id"], f"^{UUID}$")
                    self.assertEqual(ws.rest()[0][-1], {"type": "exit", "exit_code": 0})
            self.assertEqual(box.output("wc -l < /tmp/runs"), "4\n")
            self.assertEqual(box.reconnect(started["command_id"])[0],
                             [{"type": "stdout", "data": "a\n", "offset": 0},
                              {"type": "exit", "exit_code": 0}])
            self.assertEqual(box.reconnect("mine")[0][0]["error_type"], "CommandNotFound")
            for value in True, "x":
                with box.started("read x; echo $x; cat", close_stdin=value) as (ws, _):
                    ws.send(type="close_stdin")
                    for text in "one\n", "two\n":
                        ws.send(type="input", data=text)
                        self.assertEqual(ws.receive()["data"], text)
                        ws.send(type="close_stdin")
                    ws.send(type="kill")
                    self.assertEqual(ws.rest()[0], [{"type": "exit", "exit_code": 137}])

    def test_the_new_one_is_the_default(self):
        for options in [], ["--dialect", "2026-08"], ["--dialect", "2026-03", "--dialect",
                                                      "2026-08"]:
            with Server(*options) as server, server.create() as box:
                with box.started("cat; echo a", command_id="mine", close_stdin=True) as (ws, first):
                    self.assertEqual(first["command_id"], "mine")
                    self.assertEqual(len(ws.rest()[0]), 2)
                self.assertEqual(box.reconnect("mine")[0][0], first)


# ---- faults on purpose ----

class Chaos(unittest.TestCase):
    COMMAND = "seq 1 100000"
    OUTPUT = numbers(1, 100000)

    def chaos(self, *specifications):
        """A sandbox of a server with these."""
        server = Server(*(word for text in specifications for word in ("--chaos", text)))
        self.addCleanup(server.__exit__)
        return server.create()

    def sizes(self, box, count, pause=0):
        """How many bytes each connection sends until it is cut, and how it ends."""
        result = []
        for _ in range(count):
            with wire.dial(box.url) as connection:
                payload = json.dumps({"type": "execute", "command": self.COMMAND}).encode()
                connection.sendall(
                    b"GET /execute/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                    b"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                    b"Sec-WebSocket-Version: 13\r\n\r\n\x81" + bytes([0x80 | len(payload)]) +
                    b"\0\0\0\0" + payload)
                time.sleep(pause)
                data = wire.everything(connection)
            reset = data.endswith(b"(reset)")
            result.append((len(data) - 7 * reset, reset))
        return result

    def follow(self, box, **fields):
        client = Follower(box, self.COMMAND, command_id="followed", **fields)
        self.assertEqual(client.run(), {"type": "exit", "exit_code": 0})
        self.assertEqual(client.digest(), digest(self.OUTPUT))
        return client.codes

    def test_connections_are_reset_after_so_many_bytes(self):
        box = self.chaos("cut=100000")
        self.assertEqual(self.sizes(box, 3), [(100000, True)] * 3)
        self.assertEqual(self.sizes(self.chaos("cut=300000"), 1, pause=0.5), [(300000, True)])
        codes = self.follow(box)
        self.assertEqual(set(codes), {"reset"})
        self.assertGreater(len(codes), 5)
        self.assertEqual(self.sizes(self.chaos("cut=5"), 2), [(5, True)] * 2)

    def test_connections_end_without_a_close_frame(self):
        box = self.chaos("fin=100000")
        self.assertEqual(self.sizes(box, 3), [(100000, False)] * 3)
        codes = self.follow(box)
        self.assertEqual(set(codes), {None})
        self.assertGreater(len(codes), 5)

    def test_random_numbers_are_the_same_each_time(self):
        sizes = [[size for size, _ in self.sizes(self.chaos(text), 6)]
                 for text in ("cut=50000-500000", "cut=50000-500000,seed=1",
                              "cut=50000-500000,seed=2")]
        self.assertEqual(sizes[0], sizes[1])
        self.assertNotEqual(sizes[0], sizes[2])
        for one in sizes:
            self.assertEqual(len(set(one)), 6)
            self.assertTrue(all(50000 <= size <= 500000 for size in one), one)
        self.assertEqual(set(self.follow(self.chaos("fin=50000-100000"))), {None})

    def test_http_is_cut_too(self):
        box = self.chaos("fin=1000")
        box.output("true")
        wire.upload(box.url, "/tmp/x", b"x" * 5000)
        data = wire.raw(box.url, b"GET /download?path=/tmp/x HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual((len(data), data[-1:]), (1000, b"x"))
        self.assertEqual(box.output("echo short"), "short\n")

    def test_websockets_are_closed_with_a_code(self):
        for code in 1001, 1011:
            box = self.chaos(f"close={code}:60000")
            codes = self.follow(box)
            self.assertEqual(set(codes), {code})
            self.assertGreater(len(codes), 4)

    def test_upgrades_are_refused_for_a_number(self):
        box = self.chaos("refuse=503:3")
        self.assertEqual(box.output("echo http works"), "http works\n")
        for _ in range(3):
            with self.assertRaises(Refused) as refused:
                box.socket()
            self.assertEqual(refused.exception.status, 503)
        self.assertEqual(self.follow(box), [])

    def test_upgrades_are_refused_for_a_time(self):
        box = self.chaos("refuse=502:1500ms")
        start, refused = time.monotonic(), 0
        while True:
            try:
                with box.socket():
                    break
            except Refused as error:
                self.assertEqual(error.status, 502)
                refused += 1
                time.sleep(0.05)
        self.assertGreater(refused, 3)
        self.assertLess(time.monotonic() - start, 10)
        self.assertEqual(self.follow(box), [])

    def test_what_is_sent_is_delayed(self):
        for delay in 0, 0.4:
            box = self.chaos(f"delay={int(delay * 1000)}ms") if delay else Server().create()
            self.addCleanup(box.server.__exit__)
            start = time.monotonic()
            with box.started("read x; echo $x") as (ws, _):
                self.assertGreater(time.monotonic() - start, 2 * delay)
                start = time.monotonic()
                ws.send(type="input", data="x\n")
                self.assertEqual(ws.receive()["data"], "x\n")
                self.assertGreater(time.monotonic() - start, delay)
                self.assertEqual(ws.rest()[1], 1000)
            self.assertLess(time.monotonic() - start, 2 * delay + 5)
        self.assertEqual(self.follow(box), [])
        self.assertEqual(self.follow(self.chaos("delay=20ms,cut=100000"))[:3], ["reset"] * 3)

    def test_started_is_dropped(self):
        box = self.chaos("no-started=2")
        for expected in "stdout", "stdout", "started":
            with box.socket() as ws:
                ws.send(type="execute", command="echo a")
                self.assertEqual(ws.receive()["type"], expected)
        box = self.chaos("no-started")
        for _ in range(5):
            with box.socket() as ws:
                ws.send(type="execute", command="echo a", command_id="a")
                self.assertEqual([m["type"] for m in ws.rest()[0]], ["stdout", "exit"])
        self.assertEqual(box.reconnect("a")[0][0]["type"], "stdout")

    def test_several_together(self):
        box = self.chaos("refuse=503:1,cut=60000-90000", "seed=3,no-started=1,delay=1ms")
        with self.assertRaises(Refused):
            box.socket()
        client = Follower(box, "seq 1 50000; exit 9", command_id="all of it")
        self.assertEqual(client.run(), {"type": "exit", "exit_code": 9})
        self.assertEqual(client.digest(), digest(numbers(1, 50000)))
        self.assertGreater(len(client.codes), 3)


if __name__ == "__main__":
    main(__name__, jobs=3)  # most of the time they wait
