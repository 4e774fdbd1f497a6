#!/usr/bin/env python3
"""Drives build/sandboxd to its limits on CPU, memory and the number of processes, by control groups
and by resource limits. Reports in TAP; the last line is "N passed, N failed"."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import wire  # noqa: E402
from daemon import (SANDBOXD, Server, alive, descendants, groups, main,  # noqa: E402
                    mount_points, stat_of, wait_until)

PROCESSORS = len(os.sched_getaffinity(0))
HOG = "python3 -c 'x = bytearray(400 << 20)'"
BURN = ("python3 -c 'import time\nstart = time.process_time(); end = time.monotonic() + %g\n"
        "while time.monotonic() < end: pass\nprint(time.process_time() - start)'")
THREADS = """python3 -c 'import threading
threading.stack_size(65536)
end = threading.Event()
n = 0
try:
    while n < 5000:
        threading.Thread(target=end.wait).start()
        n += 1
except RuntimeError:
    pass
print(n, flush=True)
end.set()'"""
# Twenty of the size that one alone may well have.
MANY = """python3 -c 'import os, time
for _ in range(20):
    if os.fork() == 0:
        x = bytearray(40 << 20)
        time.sleep(1)
        os._exit(0)
ends = [os.wait()[1] for _ in range(20)]
print(ends.count(9), ends.count(0))'"""
BOMB = "b() { b | b & }; b; sleep 100"


# ---- helpers ----

def why_no_groups():
    """Why control groups cannot be tested; None: they can. Root must be able to use those that it
    can write to."""
    own = Path("/proc/self/cgroup").read_text()
    for top in mount_points():
        for path in [Path(top)] + [Path(top + line.split(":", 2)[2]) for line in own.splitlines()]:
            controllers = path / "cgroup.controllers"
            if os.getuid() == 0 and os.access(path, os.W_OK) and (
                    (path / "memory.limit_in_bytes").exists() or
                    (controllers.exists() and "memory" in controllers.read_text().split())):
                return None
    with tempfile.TemporaryDirectory() as directory, \
            subprocess.Popen([SANDBOXD, "--limits", "cgroup"], stdout=subprocess.PIPE, text=True,
                             stderr=subprocess.DEVNULL,
                             env={**os.environ, "TMPDIR": directory}) as process:
        works = process.stdout.readline().startswith("listening")
        process.terminate()
    return None if works else "no control group with the memory controller can be used here"


NO_GROUPS = why_no_groups()


def without_groups(*options):
    """A command that runs sandboxd where no control group can be made."""
    hide = "; ".join(f"mount -o bind,ro '{top}' '{top}' && mount -o remount,bind,ro '{top}'"
                     for top in mount_points())
    return ["unshare", "-m", "sh", "-ec", f"{hide or ':'}; exec \"$@\"", "sh", SANDBOXD, *options]


class Limited(unittest.TestCase):
    """Tests of one way to enforce limits; they share a server."""

    how = None

    @classmethod
    def setUpClass(cls):
        cls.skip = NO_GROUPS if cls.how == "cgroup" else None
        if cls.skip:
            return
        cls.server = Server("--limits", cls.how)
        cls.template("small", "500m", "128Mi")
        cls.template("usual")
        cls.template("large", "1500m", "8Gi")

    @classmethod
    def tearDownClass(cls):
        if not cls.skip:
            cls.server.__exit__()

    @classmethod
    def template(cls, name, cpu=None, memory=None):
        amounts = {"resources": {"cpu": cpu, "memory": memory}} if cpu else {}
        reply = cls.server.call("POST", "/templates", {"name": name, "image": "i", **amounts})
        assert reply.status == 201, reply

    def setUp(self):
        if self.skip:
            self.skipTest(self.skip)

    def expect_alive(self, box, agent):
        """The agent is the one that it was, and answers in all ways."""
        self.assertEqual(box.agent(), agent)
        self.assertEqual(wire.upload(box.url, "f", b"1", {}).status, 200)
        self.assertEqual(wire.download(box.url, "f").body, b"1")
        status = self.server.call("GET", f"/boxes/{box.name}/status").json
        self.assertEqual(status["status"], "ready")


class Common:
    """What every way does."""

    def test_a_command_that_takes_all_memory_fails_and_the_agent_goes_on(self):
        with self.server.create(template_name="small") as box:
            agent = box.agent()
            with box.started(HOG) as (ws, _):
                self.assertEqual(box.output("echo here"), "here\n")
                messages, _ = ws.rest()
            self.expect_no_memory(messages)
            self.assertEqual(self.run_hog(box), self.hog_code)
            self.expect_alive(box, agent)
            self.assertEqual(box.output("echo here"), "here\n")

    def run_hog(self, box):
        code, out, _ = box.run(HOG)
        self.assertEqual(out, "")
        return code

    def expect_no_memory(self, messages):
        self.assertEqual(messages[-1]["exit_code"], self.hog_code, messages)

    def test_within_the_limit_all_is_well(self):
        with self.server.create(template_name="small") as box:
            self.assertEqual(box.run("python3 -c 'print(len(bytearray(60 << 20)))'"),
                             (0, f"{60 << 20}\n", ""))

    def test_programs_start_with_what_a_template_has_by_default(self):
        with self.server.create(template_name="usual") as box:
            self.assertEqual(box.run("python3 -c 'print(1)'"), (0, "1\n", ""))
            for program, *rest in (("node", "-e", "'console.log(1)'"), ("java", "-version"),
                                   ("perl", "-e", "'print 1'")):
                if box.run(f"command -v {program}")[0] == 0:
                    code, _, err = box.run(" ".join([program, *rest]), timeout=60)
                    self.assertEqual(code, 0, (program, err))

    def test_the_number_of_processes_is_limited(self):
        with self.server.create(template_name="large") as box:
            count = int(box.output(THREADS, timeout=60))
            self.assertGreater(count, 1900)
            self.assertLess(count, 2048)

    def test_a_fork_bomb_is_contained(self):
        with self.server.create(template_name="usual") as box:
            agent = box.agent()
            with box.started(BOMB):
                time.sleep(1)
                start = time.monotonic()
                self.expect_alive(box, agent)
                self.assertLess(time.monotonic() - start, 20)
                processes = descendants(agent)
                self.assertLess(len(alive(processes)), 2100)
        self.assertEqual(alive(processes), [])

    def test_without_a_template_there_are_no_limits_but_for_the_number(self):
        with self.server.create() as box:
            self.assertEqual(box.output("ulimit -d; nproc"), f"unlimited\n{PROCESSORS}\n")
            self.assertEqual(self.run_hog(box), 0)

    def test_hardly_anything_is_not_too_little_for_the_agent(self):
        self.template("tiny", "1m", "1")
        with self.server.create(template_name="tiny") as box:
            agent = box.agent()
            with box.started("echo x") as (ws, _):
                self.assertNotEqual(ws.rest()[0][-1].get("exit_code"), 0)
            self.assertEqual(box.agent(), agent)
            self.assertEqual(wire.upload(box.url, "f", b"1", {}).status, 200)

    def test_the_agent_itself_has_no_limits(self):
        with self.server.create(template_name="small") as box:
            limits = Path(f"/proc/{box.agent()}/limits").read_text()
            self.assertRegex(limits, r"Max data size +unlimited +unlimited")
            self.assertEqual(len(os.sched_getaffinity(box.agent())), PROCESSORS)

    def test_without_isolation_there_are_limits_too(self):
        with Server("--no-isolation", "--limits", self.how) as server:
            server.call("POST", "/templates", {"name": "t", "image": "i", "resources": {
                "cpu": "1", "memory": "128Mi"}})
            with server.create(template_name="t") as box:
                self.assertEqual(self.run_hog(box), self.hog_code)


class ByGroups(Common, Limited):
    how = "cgroup"
    hog_code = 137

    def test_it_says_so_at_the_start(self):
        self.assertRegex(self.server.said(), r"(?m)^sandboxd: limits: cgroup v[12] "
                                             r"\(cpu, memory, pids\)$")
        with Server() as server:
            self.assertIn("limits: cgroup v", server.said())

    def test_the_memory_of_all_commands_is_counted_together(self):
        self.template("fast", "2", "512Mi")
        with self.server.create(template_name="fast") as box:
            agent = box.agent()
            killed, ended = map(int, box.output(MANY).split())
            self.assertGreater(killed, 3)
            self.assertGreater(ended, 3)
            self.expect_alive(box, agent)

    def test_shared_memory_is_counted(self):
        with self.server.create(template_name="small") as box:
            self.assertEqual(box.run("exec head -c 300M /dev/zero > /dev/shm/x")[0], 137)

    def test_half_a_processor_is_half_a_processor(self):
        with self.server.create(template_name="small") as box:
            used = float(box.output(BURN % 2.4))
            self.assertGreater(used, 0.5)
            self.assertLess(used, 1.6)
            both = f"({BURN % 2.4}) & {BURN % 2.4}; wait"
            self.assertLess(sum(map(float, box.output(both).split())), 1.6)

    def test_the_limits_are_those_of_the_template(self):
        values = {"cpu.max": "50000 100000", "memory.max": str(128 << 20),
                  "cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000",
                  "memory.limit_in_bytes": str(128 << 20), "pids.max": "2048"}
        with self.server.create(template_name="small") as box:
            found = {name: (Path(path) / name).read_text().strip()
                     for path in groups(self.server.process.pid)
                     if path.endswith(box.document["id"])
                     for name in values if (Path(path) / name).exists()}
            self.assertGreaterEqual(len(found), 3)
            self.assertEqual(found, {name: values[name] for name in found})

    def test_only_commands_are_in_the_groups(self):
        with self.server.create(template_name="small") as box:
            box_id = box.document["id"]
            with box.started("sleep 100 & sleep 100"):
                agent = box.agent()
                self.assertTrue(wait_until(lambda: len(descendants(agent)) == 3))
                for pid in [agent, stat_of(agent)[0]]:
                    self.assertNotIn(box_id, Path(f"/proc/{pid}/cgroup").read_text())
                for pid in descendants(agent):
                    self.assertIn(box_id, Path(f"/proc/{pid}/cgroup").read_text())

    def test_commands_have_no_descriptor_of_the_groups(self):
        with self.server.create(template_name="small") as box:
            self.assertEqual(box.output("ls /proc/self/fd | wc -l"), "4\n")

    def test_a_deleted_sandbox_leaves_no_group(self):
        pid = self.server.process.pid
        before = groups(pid)
        self.assertNotEqual(before, [])
        with self.server.create() as box, box.started("sleep 1000 & sleep 1000"):
            self.assertTrue(any(path.endswith(box.document["id"]) for path in groups(pid)))
        self.assertEqual(groups(pid), before)

    def test_a_sandbox_that_ends_by_itself_leaves_no_group(self):
        pid = self.server.process.pid
        before = groups(pid)
        for i in range(2):
            box = self.server.create()
            box.output("setsid sleep 1000 > /dev/null 2>&1 &")
            agent = box.agent()
            os.kill(stat_of(agent)[0] if i else agent, signal.SIGKILL)
            self.assertTrue(wait_until(lambda: groups(pid) == before), groups(pid))

    def test_a_creation_that_fails_leaves_no_group(self):
        pid = self.server.process.pid
        before = groups(pid)
        with tempfile.TemporaryDirectory() as image:
            with Server("--limits", "cgroup", "--image", f"i={image}") as server:
                own = groups(server.process.pid)
                server.call("POST", "/templates", {"name": "t", "image": "i"})
                Path(image, "etc").write_text("no directory")
                reply = server.call("POST", "/boxes", {"template_name": "t", "wait_for_ready": True,
                                                       "timeout": 30})
                self.assertIn(reply.status, (422, 503))
                self.assertTrue(wait_until(lambda: groups(server.process.pid) == own))
        self.assertEqual(groups(pid), before)

    def test_the_end_leaves_no_group(self):
        for options in ((), ("--no-isolation",)):
            with Server("--limits", "cgroup", *options) as server:
                server.create().output("setsid sleep 1000 > /dev/null 2>&1 &")
                pid = server.process.pid
                self.assertGreater(len(groups(pid)), 1)
                server.stop()
                self.assertEqual(groups(pid), [])

    def test_groups_of_one_that_was_killed_are_removed_by_the_next(self):
        for options in ((), ("--no-isolation",)):
            with Server("--limits", "cgroup", *options) as server:
                server.create().output("setsid sleep 1000 > /dev/null 2>&1 &")
                pid = server.process.pid
                server.stop(signal.SIGKILL)
                self.assertNotEqual(groups(pid), [])
            other = groups(self.server.process.pid)
            with Server("--limits", "cgroup"):
                self.assertEqual(groups(pid), [])
                self.assertEqual(groups(self.server.process.pid), other)

    def test_where_groups_are_not_writable_it_does_with_less_or_refuses(self):
        if os.getuid() != 0:
            self.skipTest("only root can try")
        done = subprocess.run(without_groups("--limits", "cgroup"), capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("control groups cannot limit CPU and memory here", done.stderr)
        with tempfile.TemporaryFile("w+") as log, \
                tempfile.TemporaryDirectory() as directory, \
                subprocess.Popen(without_groups(), stdout=subprocess.PIPE, stderr=log, text=True,
                                 env={**os.environ, "TMPDIR": directory}) as process:
            self.assertIn("listening", process.stdout.readline())
            process.terminate()
            self.assertEqual(process.wait(20), 0)
            log.seek(0)
            self.assertRegex(log.read(), r"limits: rlimits: memory per process, processors by "
                                         r"affinity \(no control groups: .+\)")


class ByResourceLimits(Common, Limited):
    how = "rlimit"
    hog_code = 1

    def expect_no_memory(self, messages):
        super().expect_no_memory(messages)
        self.assertIn("MemoryError", "".join(message.get("data", "") for message in messages))

    def test_it_says_so_at_the_start(self):
        self.assertIn("sandboxd: limits: rlimits: memory per process, processors by affinity "
                      "(as asked for)\n", self.server.said())

    def test_there_are_no_groups(self):
        with self.server.create(template_name="small"):
            self.assertEqual(groups(self.server.process.pid), [])

    def test_a_command_has_as_many_processors_as_it_takes(self):
        for name, count in ("small", 1), ("large", min(2, PROCESSORS)):
            with self.server.create(template_name=name) as box:
                self.assertEqual(box.output("nproc"), f"{count}\n")
                self.assertEqual(box.output("nproc"), f"{count}\n")

    def test_commands_of_one_sandbox_share_the_processors(self):
        if PROCESSORS == 1:
            self.skipTest("there is only one processor")
        with self.server.create(template_name="small") as box:
            used = sum(map(float, box.output(f"({BURN % 2}) & {BURN % 2}; wait").split()))
            self.assertLess(used, 2.6)

    def test_the_limits_are_those_of_the_template(self):
        with self.server.create(template_name="small") as box:
            self.assertEqual(box.output("ulimit -d; ulimit -Hd; ulimit -v; ulimit -u"),
                             f"{128 << 10}\n{128 << 10}\nunlimited\n2048\n")

    def test_the_number_of_processes_is_one_for_each_sandbox(self):
        release = tuple(map(int, os.uname().release.split(".")[:2]))
        if release < (5, 14):
            self.skipTest("this kernel counts all sandboxes together")
        with self.server.create(template_name="large") as one, \
                self.server.create(template_name="large") as other:
            with one.started(THREADS.replace("end.set()", "time.sleep(100)").replace(
                    "import threading", "import threading, time")) as (ws, _):
                self.assertGreater(int(ws.receive()["data"]), 1900)
                self.assertEqual(other.output("echo a | cat | cat"), "a\n")


class NoLimits(unittest.TestCase):
    def test_limits_can_be_left_out(self):
        with Server("--limits", "none") as server:
            self.assertIn("sandboxd: limits: none\n", server.said())
            server.call("POST", "/templates", {"name": "t", "image": "i", "resources": {
                "cpu": "1", "memory": "128Mi"}})
            with server.create(template_name="t") as box:
                self.assertEqual(box.output("ulimit -d; nproc"), f"unlimited\n{PROCESSORS}\n")
                self.assertEqual(box.run(HOG)[0], 0)
                self.assertEqual(groups(server.process.pid), [])

    def test_the_option_is_checked(self):
        done = subprocess.run([SANDBOXD, "--limits", "some"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("--limits", done.stderr)
        done = subprocess.run([SANDBOXD, "--help"], capture_output=True, text=True)
        self.assertIn("--limits", done.stdout)


if __name__ == "__main__":
    main(__name__)
