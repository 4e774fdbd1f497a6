#!/usr/bin/env python3
"""Tests of the repository's own scripts: amalgamate.py, tests/run.py and tools/demo.sh.

Reports in TAP.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tap import ROOT, execute, expect, run

# ---- amalgamate.py ----


class Copy:
    """A copy of what amalgamate.py reads, to be spoilt."""

    def __init__(self):
        self.directory = tempfile.TemporaryDirectory()
        self.root = Path(self.directory.name)
        for name in ("src", "transports"):
            shutil.copytree(ROOT / name, self.root / name)
        for name in ("amalgamate.py", "LICENSE"):
            shutil.copy(ROOT / name, self.root)

    def amalgamate(self, *arguments):
        execute(sys.executable, "amalgamate.py", *arguments, cwd=self.root)
        return self.root / "sandbox.h"

    def refuses(self, *arguments, because):
        """It must fail, and say why."""
        done = subprocess.run([sys.executable, "amalgamate.py", *arguments], cwd=self.root, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        expect(done.returncode == 1 and because in done.stdout,
               f"status {done.returncode}, expected to read {because!r} in:\n{done.stdout}")


def header_is_fresh_after_making_it():
    copy = Copy()
    header = copy.amalgamate()
    first = header.read_bytes()
    copy.amalgamate("--check")
    expect(copy.amalgamate().read_bytes() == first, "made twice, it differs")
    text = first.decode()
    expect('\n#include "' not in text, "it includes a part")
    expect("\n\n\n" not in text, "it has gaps")


def stale_header_is_found():
    copy = Copy()
    copy.refuses("--check", because="make amalgamate")
    copy.amalgamate()
    with (copy.root / "src/base.c").open("a") as part:
        part.write("/* changed */\n")
    copy.refuses("--check", because="make amalgamate")


def every_file_is_a_part():
    copy = Copy()
    (copy.root / "src/novel.c").touch()
    copy.refuses(because="src/novel.c")


def every_part_is_a_file():
    copy = Copy()
    (copy.root / "src/base.c").unlink()
    copy.refuses(because="src/base.c")


def manual_cannot_end_its_comment():
    copy = Copy()
    with (copy.root / "src/manual.txt").open("a") as manual:
        manual.write("an end: */\n")
    copy.refuses(because="src/manual.txt")


def bundle_is_one_file():
    copy = Copy()
    copy.amalgamate("--bundle", "posix", copy.root / "bundle.h")
    program = copy.root / "alone/main.c"
    program.parent.mkdir()
    shutil.move(copy.root / "bundle.h", program.parent)
    program.write_text('#define SANDBOX_IMPLEMENTATION\n#include "bundle.h"\n'
                       "int main(void)\n{\n    return sbx_posix == 0;\n}\n")
    execute("cc", "main.c", cwd=program.parent)
    copy.refuses("--bundle", "pigeon", "bundle.h", because="transports/sandbox_pigeon.h")


# ---- tests/run.py ----


def counted(script, *arguments):
    """The last line and the exit status of run.py for a test program in shell."""
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory, "program")
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        done = subprocess.run([sys.executable, "tests/run.py", *arguments, str(program)], cwd=ROOT,
                              text=True, stdout=subprocess.PIPE, check=False)
    return done.stdout.splitlines()[-1], done.returncode


def runner_counts():
    for script, kind, expected in (
            ("echo 1..2; echo ok 1 - a; echo ok 2 - b", "--tap", ("2 passed, 0 failed", 0)),
            ("printf '1..1\\nnoise'; echo ok 1 - a", "--tap", ("1 passed, 0 failed", 0)),
            ("echo 1..1; echo '# ok 1 - b'; echo ok 1 - a", "--tap", ("1 passed, 0 failed", 0)),
            ("echo 1..1; echo 'ok 1 # SKIP a'", "--tap", ("0 passed, 0 failed, 1 skipped", 0)),
            ("echo 1..2; echo ok 1 - a; echo not ok 2 - b", "--tap", ("1 passed, 1 failed", 1)),
            ("true", "--exit", ("1 passed, 0 failed", 0)),
            ("false", "--exit", ("0 passed, 1 failed", 1)),
            ("echo 1..1; echo not ok 1 - a", "--serial", ("0 passed, 1 failed", 1))):
        found = counted(script, kind)
        expect(found == expected, f"{script}: {found}, expected {expected}")


def runner_sees_what_is_not_said():
    for script in ("true", "echo 1..1", "echo ok 1 - a", "echo 1..1; echo ok 1 - a; exit 3",
                   "echo 1..1; echo ok 1 - a; kill -SEGV $$", "echo 1..1; echo ok 1 - a; sleep 60"):
        line, status = counted(script, "--limit", "1", "--tap")
        expect(status == 1 and line.endswith("1 failed"), f"{script}: {line}")


# ---- tools/demo.sh ----


class Demo:
    """tools/demo.sh with programs of our own."""

    def __init__(self, sandboxd, quickstart):
        self.directory = tempfile.TemporaryDirectory()
        self.build = Path(self.directory.name, "build")
        self.temporary = Path(self.directory.name, "temporary")
        self.temporary.mkdir()
        self.build.mkdir()
        # Both write down their process ids.
        for name, script in (("sandboxd", sandboxd), ("quickstart", quickstart)):
            program = self.build / name
            program.write_text(f"#!/bin/sh\necho $$ > {self.build}/{name}.pid\n{script}\n")
            program.chmod(0o755)
        environment = {name: value for name, value in os.environ.items() if name != "LANGSMITH_API_KEY"}
        environment.update(BUILD=str(self.build), TMPDIR=str(self.temporary))
        self.process = subprocess.Popen(["tools/demo.sh"], cwd=ROOT, env=environment, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def wait_for(self, name):
        for _ in range(100):
            if Path(self.build, name).exists():
                return
            time.sleep(0.1)
        raise AssertionError(f"{name} did not appear")

    def ends(self, status):
        """It must end with this status and leave nothing; returns its output."""
        output = self.process.communicate(timeout=20)[0]
        expect(self.process.returncode == status,
               f"exit status {self.process.returncode}, expected {status}:\n{output}")
        expect(not list(self.temporary.iterdir()), "it left files")
        for path in self.build.glob("*.pid"):
            expect(not Path("/proc", path.read_text().strip()).exists(), f"{path.stem} still runs")
        return output


LISTENS = "echo listening on http://127.0.0.1:1; exec sleep 60"


def demo_says_what_the_example_says():
    output = Demo(LISTENS, "echo $LANGSMITH_ENDPOINT").ends(0)
    expect(output == "http://127.0.0.1:1\n", output)


def demo_fails_with_the_example():
    Demo(LISTENS, "exit 7").ends(7)


def demo_fails_without_a_server():
    expect("did not start" in Demo("exit 1", "true").ends(1), "it did not say so")


def demo_ends_on_a_signal():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        demo = Demo(LISTENS, "exec sleep 60")
        demo.wait_for("quickstart.pid")
        demo.process.send_signal(number)
        demo.ends(128 + number)


def demo_prints_four():
    environment = {name: value for name, value in os.environ.items() if name != "LANGSMITH_API_KEY"}
    output = execute("tools/demo.sh", env=environment)
    expect(re.search("^4$", output, re.MULTILINE), output)


run([(test.__name__.replace("_", " "), test) for test in (
    header_is_fresh_after_making_it, stale_header_is_found, every_file_is_a_part,
    every_part_is_a_file, manual_cannot_end_its_comment, bundle_is_one_file, runner_counts,
    runner_sees_what_is_not_said, demo_says_what_the_example_says, demo_fails_with_the_example,
    demo_fails_without_a_server, demo_ends_on_a_signal, demo_prints_four)])
