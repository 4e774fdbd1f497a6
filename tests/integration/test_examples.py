#!/usr/bin/env python3
"""Runs every program of examples/ against a local server: they print what the feature specification
says, and leave nothing behind, whatever fails. Reports in TAP."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from services import BUILD, Answer, LocalServer, StandIn  # noqa: E402
from tap import ROOT, expect, run  # noqa: E402

SERVER = LocalServer()


def start(name, service, **environment):
    return subprocess.Popen([BUILD / name], env=service.environment(**environment), text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def finish(process, limit=60):
    """Its output and what it said on stderr, once it has ended."""
    try:
        return process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        expect(False, f"it did not end; it printed:\n{out}{err}")


def expect_nothing_left():
    for kind in ("sandboxes", "templates", "volumes", "pools"):
        names = getattr(SERVER, kind)()
        expect(not names, f"{kind} are left: {names}")


def prints(name, pattern, err=""):
    """A test that the program prints what pattern says, line by line, and succeeds."""
    def test():
        process = start(name, SERVER)
        out, said = finish(process)
        expect(process.returncode == 0, f"exit code {process.returncode}:\n{out}{said}")
        expect(re.fullmatch(pattern, out), f"it printed:\n{out}instead of:\n{pattern}")
        expect(re.fullmatch(err, said), f"on stderr it printed:\n{said}")
        expect_nothing_left()
    return test


QUICKSTART = r"4\nsuccess: true\n"

EXAMPLES = {
    "quickstart": prints("quickstart", QUICKSTART),
    "configuration": prints("configuration",
                            r"from the environment: the service answers\n"
                            r"explicit: the service answers\n", r"(log: .*\n)*"),
    "run": prints("run",
                  r"stdout: Hello, World!\nstderr: \"\"\nexit code: 0\nsuccess: true\n"
                  r"success: false\nexit code: 1\n"
                  r"stdout: Good morning from /tmp!\n"),
    "callbacks": prints("callbacks",
                        r"compiling parser\ncompiling writer\ncompiling client\n"
                        r"Build succeeded\n", r"warning: client: unused variable\n"),
    "handle": prints("handle",
                     r"Command ID: \S+\n\[OUT\] building\n\[ERR\] no tests found\n\[OUT\] done\n"
                     r"Exit code: 3\n"
                     r"Collected: 14 bytes of stdout, 15 of stderr\n"),
    "kill": prints("kill", r"started\nExit code: 137\n"),
    "stdin": prints("stdin", r"Name: Hello World\n"),
    "reconnect": prints("reconnect", r"line 1\n-- another handle --\nline 2\nline 3\nline 4\n"),
    "pty": prints("pty", r">>> print\('hello'\)\nhello\n>>> exit\(\)\nthis is a terminal\n"),
    "no_timeout": prints("no_timeout", r"Ready on port 8000\nother work\nstopped: true\n"),
    "lifetimes": prints("lifetimes",
                        r"within its TTL: exit code 3\nafter its TTL: it is forgotten\n"
                        r"idle for too long: exit code 137\n"
                        r"killed on disconnect: exit code 137\nnever idle: exit code 5\n"),
    "files": prints("files",
                    r"Hello from file!\nprint\('Hello from file!'\)\ndata\.bin: 00 01 02 ff\n"
                    r"25 %\n50 %\n75 %\n100 %\nlast line 099999\n"
                    r"1200000 bytes came back, sum "
                    + str(sum(sum(b"line %06d\n" % i) for i in range(100000))) + r"\n"),
    "event_loop": prints("event_loop",
                         r"(command 1: tick\n(command 1: tick\ncommand 2: once\n|"
                         r"command 2: once\ncommand 1: tick\n)command 1: tick\ncommand 3: last\n)"
                         r"command 1 ended with exit code 0\ncommand 2 ended with exit code 0\n"
                         r"command 3 ended with exit code 7\n"),
    "reuse": prints("reuse", r"sandbox-\w+\nin the list: ready\nStill running!\nrenamed: true\n"),
    "errors": prints("errors",
                     r"Command timed out: .+\nfile not found: .+\nsandbox not found: .+\n"
                     r"Wrong argument name: .+\nConnection error: .+\n"),
    "templates": prints("templates",
                        r"Python 3\.\d+\.\d+\nin the list\n"
                        r"image python:3\.12-slim, cpu 1, memory 1Gi\n"
                        r"in use: it cannot be deleted\ndeleted\n"),
    "volumes": prints("volumes", r"persistent data\nit has 2Gi now\n"),
    "pools": prints("pools", r"2 replicas\nPython 3\.\d+\.\d+\n3 replicas\n"),
    "own_transport": prints("own_transport", r"hello\n"),
    "async_creation": prints("async_creation", r"(provisioning\n){2}(ready: hello\n){2}"),
}


def every_example_is_tested():
    names = {path.stem for path in (ROOT / "examples").glob("*.c")}
    expect(names == set(EXAMPLES), f"examples without a test, or tests without an example: "
                                   f"{names ^ set(EXAMPLES)}")


def quickstart_can_run_twice_at_once():
    both = [start("quickstart", SERVER), start("quickstart", SERVER)]
    for process in both:
        out, err = finish(process)
        expect(process.returncode == 0 and re.fullmatch(QUICKSTART, out), out + err)
    expect_nothing_left()


def interrupted(name, said, code):
    """A test that Ctrl-C after the first output ends the program soon, and that it cleans up."""
    def test():
        process = start(name, SERVER)
        first = process.stdout.readline()
        before = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = finish(process)
        expect(time.monotonic() - before < 5, "it took long to end")
        expect(process.returncode == code, f"exit code {process.returncode}: {first}{out}{err}")
        expect(said in err, f"on stderr it printed {err!r}")
        expect_nothing_left()
    return test


def interrupted_creation_is_undone():
    """The service takes its time; the program is told to end, and deletes what may come about."""
    with StandIn() as service:
        service.answers = {
            ("POST", "/templates"): Answer(201, {"name": "t"}),
            ("POST", "/boxes"): Answer(201, {"name": "s"}, after=30),
        }
        process = start("quickstart", service)
        while ("POST", "/boxes") not in service.requests and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        out, err = finish(process)
        name = service.document("POST", "/boxes")["name"]
        expect(process.returncode == 1, f"exit code {process.returncode}: {out}{err}")
        template = service.document("POST", "/templates")["name"]
        expect(service.requests[2:] == [("DELETE", f"/boxes/{name}"),
                                        ("DELETE", f"/templates/{template}")],
               f"{service.requests}")


def quickstart_deletes_after_each_failure():
    """Each step fails once; what was made before it is deleted, and the error is the first one."""
    steps = ["template", "sandbox", "run"]
    for failing in range(3):
        with StandIn() as service:
            service.otherwise = Answer(403, {"detail": {"message": "the moon is full"}})
            service.answers = [
                {},
                {("POST", "/templates"): Answer(201, {"name": "t"})},
                {("POST", "/templates"): Answer(201, {"name": "t"}),
                 ("POST", "/boxes"): Answer(201, service.sandbox("s"))},
            ][failing]
            process = start("quickstart", service)
            out, err = finish(process)
            expect(process.returncode == 1 and out == "",
                   f"{steps[failing]}: {process.returncode} {out}{err}")
            expect("the moon is full" in err, f"{steps[failing]}: on stderr it printed {err!r}")
            template = service.document("POST", "/templates")["name"]
            deleted = [path for method, path in service.requests if method == "DELETE"]
            wanted = (["/boxes/s"] if failing == 2 else []) + [f"/templates/{template}"]
            expect(deleted == wanted, f"{steps[failing]}: deleted {deleted}")


def quickstart_works_without_templates():
    """The hosted service of today answers 404 to them; sandboxes have a default."""
    with StandIn() as service:
        service.answers = {
            ("POST", "/templates"): Answer(404),
            ("POST", "/boxes"): Answer(201, service.sandbox("s")),
            ("GET", "/data/execute/ws"): Answer(404),
            ("POST", "/data/execute"): Answer(200, {"stdout": "4\n", "stderr": "", "exit_code": 0}),
        }
        service.otherwise = Answer(204)
        process = start("quickstart", service)
        out, err = finish(process)
        expect(process.returncode == 0 and re.fullmatch(QUICKSTART, out), f"{out}{err}")
        expect("template_name" not in service.document("POST", "/boxes"), "it asked for a template")
        expect(("DELETE", "/boxes/s") in service.requests, "the sandbox is left")


def main():
    with SERVER:
        run([(f"{name} does what it says", test) for name, test in EXAMPLES.items()] + [
            ("every example is tested", every_example_is_tested),
            ("quickstart can run twice at once", quickstart_can_run_twice_at_once),
            ("quickstart deletes what it made after each failure",
             quickstart_deletes_after_each_failure),
            ("quickstart works where there are no templates", quickstart_works_without_templates),
            ("an interrupted creation is undone", interrupted_creation_is_undone),
            ("Ctrl-C ends callbacks", interrupted("callbacks", "SBX_E_CANCELLED", 1)),
            ("Ctrl-C ends handle", interrupted("handle", "SBX_E_CANCELLED", 1)),
            ("Ctrl-C ends event_loop", interrupted("event_loop", "event_loop: ", 1)),
        ])


if __name__ == "__main__":
    main()
