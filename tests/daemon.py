"""A sandboxd of one's own for tests, and a report of them in TAP."""

import concurrent.futures
import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from urllib.parse import quote

import wire
from services import BUILD
from wire import WebSocket

SANDBOXD = BUILD / "sandboxd"
SANITIZED = b"__asan_init" in SANDBOXD.read_bytes()


def wait_until(condition, seconds=10):
    """Whether the condition came true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


def stat_of(pid):
    """(parent, state) of a process; None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[1]), fields[0]
    except (OSError, IndexError):
        return None


def descendants(pid):
    """All processes that the process has started, directly or not."""
    parents = {int(name): stat for name in os.listdir("/proc")
               if name.isdigit() and (stat := stat_of(name))}
    found, more = [], [pid]
    while more:
        parent = more.pop()
        children = [child for child, stat in parents.items() if stat[0] == parent]
        found += children
        more += children
    return found


def alive(pids):
    return [pid for pid in pids if (stat := stat_of(pid)) and stat[1] not in "ZX"]


def mount_points():
    """Of all hierarchies of control groups."""
    return [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()
            if line.split()[2] in ("cgroup", "cgroup2")]


def groups(pid):
    """The control groups that a sandboxd has made."""
    return [path for top in mount_points() for path, _, _ in os.walk(top)
            if re.search(rf"/sandboxd-\d+-{pid}-\d+(/|$)", path)]


class Server:
    """A sandboxd of one's own."""

    def __init__(self, *options, key=None, env=None):
        self.log = tempfile.TemporaryFile("w+")
        self.temporary = tempfile.TemporaryDirectory()
        self.key = {"X-Api-Key": key} if key else {}
        environment = {**os.environ, "TMPDIR": self.temporary.name, **(env or {})}
        self.process = subprocess.Popen([SANDBOXD, *options], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=self.log, text=True,
                                        env=environment)
        line = self.process.stdout.readline()
        assert re.fullmatch(r"listening on http://127\.0\.0\.1:\d+\n", line), line + self.said()
        self.origin = line.split()[-1]
        self.url = self.origin + "/v2/sandboxes"

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()
        self.process.stdout.close()
        self.log.close()
        self.temporary.cleanup()

    def call(self, method, path, document=None, **options):
        options.setdefault("headers", self.key)
        return wire.request(self.url + path, method, document, **options)

    def create(self, **fields):
        reply = self.call("POST", "/boxes", {"wait_for_ready": True, "timeout": 30, **fields})
        assert reply.status == 201, reply
        return Sandbox(self, reply.json)


class Sandbox:
    def __init__(self, server, document):
        self.server, self.document = server, document
        self.name, self.url = document["name"], document["dataplane_url"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.call("DELETE", "/boxes/" + quote(self.name, safe=""))

    def execute(self, command, timeout=20, **fields):
        return wire.request(f"{self.url}/execute", "POST",
                            {"command": command, "timeout": timeout, "shell": "/bin/bash",
                             **fields},
                            headers=self.server.key, timeout=timeout + 10)

    def run(self, command, **fields):
        """(exit code, stdout, stderr)"""
        reply = self.execute(command, **fields)
        assert reply.status == 200, reply
        return reply.json["exit_code"], reply.json["stdout"], reply.json["stderr"]

    def output(self, command, **fields):
        return self.run(command, **fields)[1]

    def socket(self, **options):
        return WebSocket(f"{self.url}/execute/ws", self.server.key, **options)

    @contextlib.contextmanager
    def started(self, command, options=None, **fields):
        """A WebSocket on which the command has been started, and the started message."""
        with self.socket(**(options or {})) as ws:
            ws.send(type="execute", command=command, **fields)
            message = ws.receive()
            assert message["type"] == "started", message
            yield ws, message

    def stream(self, command, **fields):
        """(messages behind started, close code)"""
        with self.started(command, **fields) as (ws, _):
            return ws.rest()

    def reconnect(self, command_id, out=0, err=0):
        """The messages and the close code."""
        with self.socket() as ws:
            ws.send(type="reconnect", command_id=command_id, stdout_offset=out, stderr_offset=err)
            return ws.rest()

    def agent(self):
        """The process of the agent, as the host sees it."""
        for pid in descendants(self.server.process.pid):
            try:
                if b"--agent" in Path(f"/proc/{pid}/cmdline").read_bytes() and \
                        b"bwrap" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
            except OSError:
                pass
        raise AssertionError("there is no agent")


class WithServer(unittest.TestCase):
    """Tests that share one server and one sandbox."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.box = cls.server.create()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def expect_error(self, reply, status, kind, message=None):
        self.assertEqual(reply.status, status, reply)
        self.assertEqual(set(reply.json), {"detail"}, reply)
        self.assertEqual(set(reply.detail), {"error", "message"}, reply)
        self.assertEqual(reply.detail["error"], kind, reply)
        if message:
            self.assertRegex(reply.detail["message"], message)

    def expect_problem(self, reply, *loc):
        self.assertEqual(reply.status, 422, reply)
        self.assertEqual(set(reply.detail[0]), {"loc", "msg", "type"}, reply)
        self.assertEqual(reply.detail[0]["loc"], list(loc), reply)
        self.assertEqual(reply.detail[0]["type"], "value_error", reply)


class WithOrphans(unittest.TestCase):
    """Tests from which no process can hide."""

    @classmethod
    def setUpClass(cls):
        # Orphans become children of this process, so that none goes unseen.
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER

    def expect_no_process(self, seconds=5):
        self.assertTrue(wait_until(lambda: not alive(descendants(os.getpid())), seconds),
                        [Path(f"/proc/{pid}/cmdline").read_bytes()
                         for pid in alive(descendants(os.getpid()))])
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def memory(pid, name):
    """VmRSS or VmHWM of a process, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB", text, re.M).group(1)) * 1024


class Report(unittest.TestResult):
    """Says in TAP how each test went. Several may do so at once, with one tally."""

    def __init__(self, tally, lock):
        super().__init__()
        self.tally, self.lock = tally, lock
        self.problems = []

    def say(self, kind, test, text=""):
        name = str(getattr(test, "_testMethodName", test)).removeprefix("test_").replace("_", " ")
        with self.lock:
            self.tally[kind] += 1
            number = sum(self.tally.values())
            print({"passed": f"ok {number} - {name}", "failed": f"not ok {number} - {name}",
                   "skipped": f"ok {number} # SKIP {name}"}[kind])
            if text:
                print(re.sub("^", "# ", text.rstrip("\n"), flags=re.M))
            sys.stdout.flush()

    def startTest(self, test):
        super().startTest(test)
        self.problems = []

    def addSuccess(self, test):
        self.say("passed", test)

    def addSkip(self, test, reason):
        self.say("skipped", test, reason)

    def addFailure(self, test, err):
        self.say("failed", test, self._exc_info_to_string(err, test))

    addError = addFailure

    def addSubTest(self, test, subtest, err):
        if err:
            self.problems.append(f"{subtest}\n{self._exc_info_to_string(err, test)}")

    def stopTest(self, test):
        if self.problems:
            self.say("failed", test, "\n".join(self.problems))


def main(name, jobs=1):
    """Runs the tests of a module, or those that the command line names, so many classes at once."""
    module = sys.modules[name]
    suites = [unittest.defaultTestLoader.loadTestsFromName(test, module) for test in sys.argv[1:]] \
        or list(unittest.defaultTestLoader.loadTestsFromModule(module))
    print(f"1..{sum(suite.countTestCases() for suite in suites)}")
    tally, lock = {"passed": 0, "failed": 0, "skipped": 0}, threading.Lock()
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for done in [pool.submit(suite, Report(tally, lock)) for suite in suites]:
            done.result()
    print(f"{tally['passed']} passed, {tally['failed']} failed"
          + (f", {tally['skipped']} skipped" if tally["skipped"] else ""))
    sys.exit(tally["failed"] > 0)
