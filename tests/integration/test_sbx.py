#!/usr/bin/env python3
"""Drives build/sbx as its users do, mostly against a local server: exit codes, streams, files,
signals, terminals. Reports in TAP."""

import fcntl
import hashlib
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from services import BUILD, KEY, Answer, LocalServer, StandIn  # noqa: E402
from tap import expect, run  # noqa: E402

SERVER = LocalServer()
SBX = BUILD / "sbx"
COMMANDS = ["run", "shell", "attach", "kill", "cp", "ls", "create", "rm", "templates"]


# ---- helpers ----

def start(*words, service=SERVER, env=None, **options):
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
               **options}
    return subprocess.Popen([SBX, *words], env=service.environment(**(env or {})), **options)


class Done:
    """A finished sbx: code, out (bytes), err (text)."""

    def __init__(self, process, data=None, limit=60):
        try:
            out, err = process.communicate(data, timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            expect(False, f"{process.args} did not end; it printed {out!r} {err!r}")
        self.code, self.out, self.err = process.returncode, out, (err or b"").decode()
        self.all = f"{' '.join(map(str, process.args))}: {self.code} {out!r} {self.err!r}"

    def expect(self, code, out=None, err=None):
        """The exit code, what is on stdout, and a pattern that matches all of stderr."""
        expect(self.code == code, f"expected exit code {code}: {self.all}")
        expect(out is None or self.out == (out if isinstance(out, bytes) else out.encode()),
               f"expected {out!r} on stdout: {self.all}")
        expect(err is None or re.fullmatch(err, self.err),
               f"expected {err!r} on stderr: {self.all}")
        return self


def sbx(*words, data=None, limit=60, **options):
    if data is not None:
        options["stdin"] = subprocess.PIPE
    return Done(start(*words, **options), data, limit)


class Sandbox:
    """A sandbox of the local server, until the end of the with block."""

    def __enter__(self):
        self.name = sbx("create").expect(0).out.decode().strip()
        return self

    def __exit__(self, *_):
        sbx("rm", self.name)

    def run(self, command):
        return sbx("run", "--sandbox", self.name, "--", command).expect(0).out


def expect_nothing_left():
    expect(not any(name.startswith("sbx-") for name in SERVER.sandboxes()), "a sandbox is left")
    expect(not any(name.startswith("sbx-") for name in SERVER.templates()), "a template is left")


def wait_until(condition, what, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        expect(time.monotonic() < end, f"it never happened: {what}")
        time.sleep(0.02)


# ---- the command line ----

def version():
    header = (Path(__file__).resolve().parents[2] / "sandbox.h").read_text(encoding="utf-8")
    number = re.search(r'#define SBX_VERSION "(.*)"', header).group(1)
    sbx("--version").expect(0, f"sbx {number}\n", "")


def help_of_everything():
    general = sbx("--help").expect(0, None, "").out.decode()
    for name in COMMANDS:
        expect(re.search(rf"^  {name} ", general, re.MULTILINE), f"{name} is not in:\n{general}")
        text = sbx(name, "--help").expect(0, None, "").out.decode()
        expect(text.startswith(f"Usage: sbx {name} "), f"{name} --help begins otherwise:\n{text}")
        for word in ("Options:", "Exit codes:", "LANGSMITH_ENDPOINT", "LANGSMITH_API_KEY"):
            expect(word in text, f"{word} is not in:\n{text}")
        expect(max(map(len, text.splitlines())) <= 80, f"{name} --help is wider than 80 columns")
        sbx("help", name).expect(0, text, "")
    sbx("help").expect(0, general, "")


def help_names_every_option():
    for name in COMMANDS:
        text = sbx(name, "--help").out.decode()
        for option in re.findall(r"^  (?:-\w, )?--([\w-]+)", text, re.MULTILINE):
            if option not in ("help", "verbose"):
                value = "=x" if f"--{option} " in text else ""
                done = sbx(name, f"--{option}{value}", "--help")
                expect("nrecogni" not in done.err, f"{name} does not know --{option}: {done.all}")


def wrong_command_lines():
    for words, message in [
            ([], r"Usage: sbx (.|\n)*"),
            (["jump"], r'sbx: there is no command "jump"\nTry `sbx --help`\.\n'),
            (["help", "jump"], r'sbx: there is no command "jump"\nTry `sbx --help`\.\n'),
            (["--jump"], r'sbx: there is no option "--jump"\nTry `sbx --help`\.\n'),
            (["--endpoint"], r'sbx: there is no option "--endpoint"\nTry `sbx --help`\.\n'),
            (["run"], r"sbx: run: there is no command to run\nTry `sbx run --help`\.\n"),
            (["run", "--jump", "true"], r"sbx: run: .*jump.*\nTry `sbx run --help`\.\n"),
            (["run", "--sandbox"], r"sbx: run: .*sandbox.*\nTry `sbx run --help`\.\n"),
            (["run", "--timeout", "soon", "true"], r"sbx: run: --timeout soon: .*\nTry .*\n"),
            (["run", "--timeout", "-1", "true"], r"sbx: run: --timeout -1: .*\nTry .*\n"),
            (["run", "--timeout", "nan", "true"], r"sbx: run: --timeout nan: .*\nTry .*\n"),
            (["run", "-e", "=x", "true"], r"sbx: run: --env =x: .*\nTry .*\n"),
            (["run", "--sandbox", "a", "--template", "b", "true"],
             r"sbx: run: .*exclude.*\nTry .*\n"),
            (["run", "--image", "a", "--template", "b", "true"],
             r"sbx: run: .*exclude.*\nTry .*\n"),
            (["cp", "a"], r"sbx: cp: it takes two names.*\nTry .*\n"),
            (["cp", "a", "b"], r"sbx: cp: exactly one of a and b must be NAME:PATH\nTry .*\n"),
            (["cp", "a:b", "c:d"], r"sbx: cp: exactly one of a:b and c:d .*\nTry .*\n"),
            (["cp", "./a:b", "/c:d"], r"sbx: cp: exactly one of \./a:b and /c:d .*\nTry .*\n"),
            (["cp", "a:", "b"], r"sbx: cp: a:: there is no path.*\nTry .*\n"),
            (["cp", "a:b", ""], r"sbx: cp: the name of the local file is empty\nTry .*\n"),
            (["ls", "a"], r"sbx: ls: it takes no names\nTry .*\n"),
            (["create", "a"], r"sbx: create: .*--name a\?\nTry .*\n"),
            (["create", "--template", "a", "--snapshot", "b"],
             r"sbx: create: .*exclude.*\nTry .*\n"),
            (["rm"], r"sbx: rm: which sandbox\?\nTry .*\n")]:
        with StandIn() as service:
            sbx(*words, service=service).expect(255, "", message)
            expect(not service.requests, f"{words}: something was sent: {service.requests}")


def endpoint_and_key():
    with StandIn() as service, StandIn() as other:
        service.answers[("GET", "/boxes")] = Answer(200, {"sandboxes": []})
        for words in (["--endpoint", service.url, "ls"], ["--endpoint=" + service.url, "ls"],
                      ["ls", "--endpoint", service.url]):
            done = sbx(*words, service=other).expect(0, None, "")
        expect(len(service.requests) == 3 and not other.requests, "it asked elsewhere")
        done = sbx("-v", "ls", service=service).expect(0)
        expect(done.err and re.fullmatch(r"(sbx: ls: .*\n)*", done.err), done.all)
        expect(KEY not in done.err + done.out.decode(), f"the key can be seen: {done.all}")
        keys = [value for headers in service.headers for name, value in headers.items()
                if name.lower() == "x-api-key"]
        expect(keys == [KEY] * 4, f"keys: {keys}")


def errors_of_the_service_are_one_line():
    with StandIn() as service:
        service.answers[("GET", "/boxes")] = Answer(401, {"detail": "no\nsuch\x1b[31mkey"})
        sbx("ls", service=service).expect(255, "", r"sbx: ls: [^\n\x1b]+\n")


# ---- run: exit codes and output ----

def exit_codes():
    for code in (0, 1, 7, 254):
        sbx("run", "--", f"exit {code}").expect(code, "", "")
    expect_nothing_left()


def command_killed_by_a_signal():
    sbx("run", "--", "kill -9 $$").expect(128 + 9, "", "")
    sbx("run", "--", "kill -TERM $$").expect(128 + 15, "", "")


def streams_are_apart():
    sbx("run", "--", "echo out; echo err >&2; printf tail").expect(0, "out\ntail", "err\n")


def output_comes_at_once():
    process = start("run", "--", "echo one; sleep 1.5; echo two >&2; sleep 1.5; echo three")
    times = []
    for stream, wanted in ((process.stdout, b"one\n"), (process.stderr, b"two\n"),
                           (process.stdout, b"three\n")):
        line = stream.readline()
        expect(line == wanted, f"{line!r} instead of {wanted!r}")
        times.append(time.monotonic())
    Done(process).expect(0)
    expect(times[1] - times[0] > 0.8 and times[2] - times[1] > 0.8, f"it came together: {times}")


def output_of_every_byte():
    command = r"printf 'a\000b\tgr\303\274n \342\202\254'"
    sbx("run", "--", command).expect(0, "a\0b\tgrün €", "")


def much_output_to_a_slow_reader():
    process = start("run", "--", "seq 3000000")
    pieces = []
    while not pieces or pieces[-1]:
        pieces.append(os.read(process.stdout.fileno(), 50000))
        if len(pieces) % 8 == 0:
            time.sleep(0.01)
    Done(process).expect(0, None, "")
    expect(b"".join(pieces) == b"".join(b"%d\n" % i for i in range(1, 3000001)),
           "it is not what the command wrote")


def running(service, *messages):
    """Lets a run in a new sandbox hear these messages of the service."""
    service.answers = {
        ("POST", "/boxes"): Answer(201, service.sandbox("s")),
        ("GET", "/data/execute/ws"): Answer(messages=[
            {"type": "started", "command_id": "c", "pid": 7}, *messages]),
    }
    service.otherwise = Answer(204)


def lost_output_is_a_failure():
    """What comes is printed, but the exit code does not say that all is well."""
    with StandIn() as service:
        running(service, {"type": "stdout", "data": "ab", "offset": 0},
                {"type": "stdout", "data": "xyz", "offset": 1000},
                {"type": "stderr", "data": "e", "offset": 1}, {"type": "exit", "exit_code": 0})
        sbx("run", "--", "true", service=service).expect(
            255, "abxyz", r"esbx: run: 999 bytes of the output are lost: [^\n]+\n")


def odd_exit_codes():
    for told, code in ((-9, 137), (-1000, 255), (256, 255), (255, 255), (2**31 - 1, 255)):
        with StandIn() as service:
            running(service, {"type": "exit", "exit_code": told})
            sbx("run", "--", "true", service=service).expect(code, "", "")


def environment():
    sbx("run", "-e", "A=1=2", "--env", "B=", "--env=C=x y", "-e", "HERE", "-e", "NOWHERE", "--",
        'echo "$A,${B-unset},$C,$HERE,${NOWHERE-unset}"',
        env={"HERE": "passed on"}).expect(0, "1=2,,x y,passed on,unset\n", "")


def directory_and_shell():
    sbx("run", "--cwd", "/tmp", "--", "pwd").expect(0, "/tmp\n", "")
    sbx("run", "--shell", "/bin/sh", "--", 'echo "${BASH_VERSION-none}"; ps -o comm= $$ 2>/dev/null'
        ' | grep -q bash && echo bash; true').expect(0)
    sbx("run", "--", 'test -n "$BASH_VERSION" && echo bash').expect(0, "bash\n", "")


def time_limit():
    before = time.monotonic()
    done = sbx("run", "--timeout", "1", "--", "echo begun; sleep 60")
    done.expect(255, "begun\n", r"sbx: run: [^\n]+\n")
    expect(time.monotonic() - before < 15, "it took long")
    sbx("run", "--timeout", "0", "--", "echo unlimited").expect(0, "unlimited\n", "")
    sbx("run", "--timeout", "2.5", "--", "echo fraction").expect(0, "fraction\n", "")
    expect_nothing_left()


def one_word_is_for_the_shell():
    sbx("run", "--", 'for i in 1 2; do echo "$i"; done | tail -n 1').expect(0, "2\n", "")
    sbx("run", "echo without dashes").expect(0, "without dashes\n", "")


def several_words_are_taken_as_they_are():
    words = ["a b", "*", "$HOME", "it's", "", '"', "\\", "`ls`", "a\nb", "-n", "ü", "$(ls)", "!!",
             "~"]
    sbx("run", "--", "printf", "<%s>", *words).expect(0, "".join(f"<{w}>" for w in words), "")
    sbx("run", "python3", "-c", "import sys; print(sys.argv[1:])", "-v", "--help").expect(
        0, "['-v', '--help']\n", "")
    # Not an assignment, not a keyword: names of commands.
    sbx("run", "--", "A=1", "true").expect(127, "")
    sbx("run", "--", "if", "true").expect(127, "")


# ---- run: sandboxes and templates ----

def new_sandbox_is_deleted():
    before = SERVER.sandboxes()
    process = start("run", "--", "echo there; sleep 1; exit 3")
    process.stdout.readline()
    made = [name for name in SERVER.sandboxes() - before if name.startswith("sbx-")]
    expect(made, "there was no sandbox while it ran")
    Done(process).expect(3)
    expect(not set(made) & SERVER.sandboxes(), "the sandbox is still there")


def existing_sandbox_stays():
    with Sandbox() as box:
        sbx("run", "--sandbox", box.name, "--", "echo kept >/tmp/file").expect(0, "", "")
        sbx("run", "--sandbox", box.name, "--", "cat /tmp/file; exit 4").expect(4, "kept\n", "")
        expect(box.name in SERVER.sandboxes(), "it was deleted")
    sbx("run", "--sandbox", box.name, "--", "true").expect(
        255, "", rf"sbx: run: {box.name}: [^\n]+\n")


def image_makes_a_temporary_template():
    before = SERVER.templates()
    process = start("run", "--image", "python:3.12-slim", "--", "echo there; sleep 1")
    process.stdout.readline()
    expect(len(SERVER.templates() - before) == 1, "there was no template while it ran")
    Done(process).expect(0, None, "")
    expect(SERVER.templates() == before, "the template is still there")
    expect_nothing_left()


def template_is_used_and_kept():
    with StandIn() as service:
        service.answers = {
            ("POST", "/boxes"): Answer(201, service.sandbox("s")),
            ("GET", "/data/execute/ws"): Answer(403, {"detail": {"message": "not today"}}),
        }
        service.otherwise = Answer(204)
        sbx("run", "--template", "mine", "--", "true", service=service).expect(
            255, "", r"sbx: run: [^\n]*not today[^\n]*\n")
        expect(service.document("POST", "/boxes")["template_name"] == "mine", "another template")
        deleted = [path for method, path in service.requests if method == "DELETE"]
        expect(deleted == ["/boxes/" + service.document("POST", "/boxes")["name"]], f"{deleted}")


def image_without_templates_on_the_service():
    with StandIn() as service:
        done = sbx("run", "--image", "x", "--", "true", service=service)
        done.expect(255, "", r"sbx: run: no template: [^\n]+\n")
        expect([method for method, _ in service.requests] == ["POST"], f"{service.requests}")


def refused_creation_is_not_deleted():
    with StandIn() as service:
        service.otherwise = Answer(401, {"detail": {"message": "who are you"}})
        sbx("run", "--", "true", service=service).expect(
            255, "", r"sbx: run: no sandbox: [^\n]+\n")
        expect([method for method, _ in service.requests] == ["POST"], f"{service.requests}")


def failed_provisioning_is_deleted():
    with StandIn() as service:
        service.answers[("POST", "/boxes")] = Answer(
            422, {"detail": {"error": "ImagePull", "message": "no such image"}})
        service.otherwise = Answer(204)
        sbx("run", "--", "true", service=service).expect(
            255, "", r"sbx: run: no sandbox: [^\n]*no such image[^\n]*\n")
        expect([method for method, _ in service.requests] == ["POST", "DELETE"],
               f"{service.requests}")


def failed_deletion_is_reported():
    with StandIn() as service:
        service.answers = {
            ("POST", "/boxes"): Answer(201, service.sandbox("s")),
            ("GET", "/data/execute/ws"): Answer(403, {"detail": {"message": "not today"}}),
        }
        service.otherwise = Answer(500, {"detail": {"message": "stuck"}})
        done = sbx("run", "--", "true", service=service)
        name = service.document("POST", "/boxes")["name"]
        done.expect(255, "",
                    rf"sbx: run: [^\n]*not today[^\n]*\n"
                    rf"sbx: run: the sandbox {name} may be left behind: [^\n]*stuck[^\n]*\n")


# ---- run: signals and closed pipes ----

def signal_ends_run(number, command, after_first_line=True):
    """Sends a signal to a run in a new sandbox; returns how it ended, in how many seconds."""
    process = start("run", "--", command)
    if after_first_line:
        expect(process.stdout.readline() == b"begun\n", "it did not begin")
    before = time.monotonic()
    process.send_signal(number)
    done = Done(process)
    expect_nothing_left()
    return done, time.monotonic() - before


def signals_delete_the_sandbox():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        done, seconds = signal_ends_run(number, "echo begun; sleep 60")
        done.expect(128 + number, "", "")
        expect(seconds < 5, f"it took {seconds} s")


def ctrl_c_while_nobody_reads():
    """The output is stuck in a full pipe; Ctrl-C ends it all the same."""
    process = start("run", "--", "yes")
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    # Only the exit is waited for: reading would set the pipe free.
    wait_until(lambda: process.poll() is not None, "the end of sbx", 10)
    process.communicate()
    expect(process.returncode == 130, f"exit code {process.returncode}")
    expect_nothing_left()


def ctrl_c_deletes_image_too():
    process = start("run", "--image", "python:3.12-slim", "--", "echo begun; sleep 60")
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    Done(process).expect(130, "", "")
    expect_nothing_left()


def ctrl_c_during_the_creation():
    with StandIn() as service:
        service.answers[("POST", "/boxes")] = Answer(201, service.sandbox("s"), after=30)
        service.otherwise = Answer(204)
        process = start("run", "--", "true", service=service)
        wait_until(lambda: service.requests, "a request")
        process.send_signal(signal.SIGINT)
        Done(process, limit=10).expect(130, "", "")
        name = service.document("POST", "/boxes")["name"]
        expect(service.requests == [("POST", "/boxes"), ("DELETE", f"/boxes/{name}")],
               f"{service.requests}")


def second_ctrl_c_ends_the_cleanup():
    with StandIn() as service:
        service.answers[("POST", "/boxes")] = Answer(201, service.sandbox("s"), after=30)
        service.otherwise = Answer(204, after=30)
        process = start("run", "--", "true", service=service)
        wait_until(lambda: service.requests, "a request")
        process.send_signal(signal.SIGINT)
        wait_until(lambda: len(service.requests) == 2, "the deletion")
        time.sleep(0.6)
        process.send_signal(signal.SIGINT)
        name = service.document("POST", "/boxes")["name"]
        Done(process, limit=5).expect(
            130, "", rf"sbx: run: the sandbox {name} may be left behind: [^\n]+\n")


def one_ctrl_c_that_comes_twice():
    """Some parents pass on what this process got from the terminal too: that is no second one."""
    process = start("run", "--", "echo begun; sleep 60")
    process.stdout.readline()
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
        time.sleep(0.02)
    Done(process).expect(130, "", "")
    expect_nothing_left()


def ignored_signals_stay_ignored():
    process = start("run", "--", "echo begun; sleep 1; echo end",
                    preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    Done(process).expect(0, "end\n", "")


def closed_streams_are_no_sockets():
    """Output for a closed stdout must not end up in a connection."""
    for closed in (">&-", "2>&-", "<&-"):
        done = subprocess.run(["bash", "-c", f"'{SBX}' run -- 'echo out; echo err >&2' {closed}"],
                              env=SERVER.environment(), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, check=False, timeout=60)
        wanted = {">&-": (255, b""), "2>&-": (255, b"out\n"), "<&-": (0, b"out\n")}[closed]
        expect((done.returncode, done.stdout) == wanted, f"{closed}: {done}")
        expect(closed != ">&-" or b"cannot write to stdout" in done.stderr, f"{closed}: {done}")
    expect_nothing_left()


def closed_pipe_ends_quietly():
    process = start("run", "--", "while :; do echo line; done")
    expect(process.stdout.readline() == b"line\n", "no output")
    process.stdout.close()
    _, err = process.stderr.read(), process.wait(20)
    expect(process.returncode == 128 + signal.SIGPIPE, f"exit code {process.returncode}")
    process.stderr.close()
    expect_nothing_left()


def closed_pipe_of_the_shell():
    line = f"'{SBX}' run -- yes | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line],
                          env=SERVER.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          check=False, timeout=60)
    expect(done.stdout == b"y\n141\n" and done.stderr == b"", f"{done}")


def full_disk_is_an_error():
    with open("/dev/full", "wb") as full:
        sbx("run", "--", "echo x", stdout=full).expect(
            255, None, r"sbx: run: cannot write to stdout: No space left on device\n")
        sbx("ls", stdout=full).expect(
            255, None, r"sbx: ls: cannot write to stdout: No space left on device\n")
    expect_nothing_left()


# ---- cp ----

class Scratch:
    """A directory for local files."""

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name)
        return self.path

    def __exit__(self, *_):
        self.directory.cleanup()


def copies_both_ways():
    with Sandbox() as box, Scratch() as here:
        for size in (0, 1, 65536, 5_000_003):
            (here / "up").write_bytes(os.urandom(size))
            sbx("cp", here / "up", f"{box.name}:/tmp/data.bin").expect(0, "", "")
            digest = hashlib.sha256((here / "up").read_bytes()).hexdigest()
            said = box.run("sha256sum </tmp/data.bin").decode()
            expect(said.startswith(digest), f"{size} bytes changed on the way up")
            sbx("cp", f"{box.name}:/tmp/data.bin", here / "down").expect(0, "", "")
            expect((here / "down").read_bytes() == (here / "up").read_bytes(),
                   f"{size} bytes changed on the way down")
        expect({path.name for path in here.iterdir()} == {"down", "up"}, "more files than that")


def directories_keep_the_name():
    with Sandbox() as box, Scratch() as here:
        box.run("mkdir -p /tmp/d ~/sub")
        (here / "name").write_text("1")
        for target, found in (("/tmp/d", "/tmp/d/name"), ("/tmp/new/", "/tmp/new/name"),
                              ("", "~/name"), ("sub", "~/sub/name"), ("/tmp/file", "/tmp/file")):
            sbx("cp", here / "name", f"{box.name}:{target}").expect(0, "", "")
            expect(box.run(f"cat {found}; rm {found}") == b"1", f"{target}: it is not {found}")
        box.run("echo 2 >/tmp/other; echo 3 >~/third")
        (here / "into").mkdir()
        for source, target, found in (("/tmp/other", here / "into", here / "into/other"),
                                      ("third", f"{here}/into/", here / "into/third")):
            sbx("cp", f"{box.name}:{source}", target).expect(0, "", "")
            expect(found.exists(), f"{source}: it is not {found}")
        sbx("cp", f"{box.name}:/tmp/other", f"{here}/missing/").expect(
            255, "", r"sbx: cp: [^\n]*No such file or directory[^\n]*\n")


def odd_names():
    name = "a b'$(x)?&#%é;"
    with Sandbox() as box, Scratch() as here:
        (here / name).write_text("odd")
        sbx("cp", here / name, f"{box.name}:/tmp/").expect(0, "", "")
        sbx("cp", f"{box.name}:/tmp/{name}", here / "back").expect(0, "", "")
        expect((here / "back").read_text() == "odd", "it changed")
        (here / "with:colon").write_text("colon")
        done = start("cp", "./with:colon", f"{box.name}:/tmp/with:colon", cwd=here)
        Done(done).expect(0, "", "")
        expect(box.run("cat /tmp/with:colon") == b"colon", "it changed")


def standard_streams():
    with Sandbox() as box:
        data = os.urandom(3_000_001)
        sbx("cp", "-", f"{box.name}:/tmp/x", data=data).expect(0, "", "")
        sbx("cp", f"{box.name}:/tmp/x", "-").expect(0, data, "")
        sbx("cp", "-", f"{box.name}:/tmp/empty", data=b"").expect(0, "", "")
        sbx("cp", f"{box.name}:/tmp/empty", "-").expect(0, b"", "")
        sbx("cp", "-", f"{box.name}:/tmp/", data=b"").expect(255, "", r"sbx: cp: [^\n]+\n")


def slow_input_is_waited_for():
    with Sandbox() as box:
        process = start("cp", "-", f"{box.name}:/tmp/slow", stdin=subprocess.PIPE)
        for piece in (b"one ", b"two ", b"three"):
            process.stdin.write(piece)
            process.stdin.flush()
            time.sleep(0.4)
        Done(process).expect(0, "", "")
        expect(box.run("cat /tmp/slow") == b"one two three", "it changed")


def input_is_fast_too():
    """A pipe that is empty for a moment must not cost the time until somebody asks again."""
    with Sandbox() as box:
        before = time.monotonic()
        process = subprocess.Popen(
            ["bash", "-c", f"head -c 50000000 /dev/zero | '{SBX}' cp - {box.name}:/tmp/zero"],
            env=SERVER.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        Done(process).expect(0, "", "")
        expect(time.monotonic() - before < 15, "50 MB took longer than 15 s")
        expect(box.run("wc -c </tmp/zero").strip() == b"50000000", "it is not all there")


def memory_of(*words, **options):
    """Runs sbx, which must succeed; returns the most memory that it had, in KiB."""
    process = start(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    expect(process.returncode == 0, f"{words}: exit code {process.returncode}")
    return usage.ru_maxrss


def copies_need_little_memory():
    with Sandbox() as box, Scratch() as here:
        with open(here / "large", "wb") as file:
            file.truncate(200_000_000)
        base = memory_of("ls")
        for words in (["cp", here / "large", f"{box.name}:/tmp/large"],
                      ["cp", f"{box.name}:/tmp/large", here / "back"],
                      ["cp", f"{box.name}:/tmp/large", "-"]):
            more = memory_of(*words) - base
            expect(more < 1024, f"{words[1]} to {words[2]} took {more} KiB more than ls")
        expect((here / "back").stat().st_size == 200_000_000, "it is not all there")


def missing_files():
    with Sandbox() as box, Scratch() as here:
        for target in (here / "x", "-"):
            sbx("cp", f"{box.name}:/tmp/none", target).expect(
                255, "", r"sbx: cp: /tmp/none: [^\n]+\n")
        expect(not list(here.iterdir()), f"left: {list(here.iterdir())}")
        sbx("cp", here / "none", f"{box.name}:/tmp/x").expect(
            255, "", rf"sbx: cp: {here}/none: No such file or directory\n")
        sbx("cp", here, f"{box.name}:/tmp/x").expect(255, "", r"sbx: cp: [^\n]*directory[^\n]*\n")
        sbx("cp", here / "none", "no-such-box:/tmp/x").expect(255, "")
        (here / "file").write_text("x")
        sbx("cp", here / "file", "no-such-box:/tmp/x").expect(
            255, "", r"sbx: cp: no-such-box: [^\n]+\n")
        sbx("cp", f"{box.name}:/tmp/none", here / "file").expect(255, "")
        expect((here / "file").read_text() == "x", "a failed download changed the file")


def broken_download_leaves_nothing():
    with StandIn() as service, Scratch() as here:
        service.answers = {
            ("GET", "/boxes/s"): Answer(200, service.sandbox("s")),
            ("GET", "/data/download"): Answer(200, body=b"only this", length=100000),
        }
        (here / "old").write_text("old")
        for name in ("new", "old"):
            sbx("cp", "s:/f", here / name, service=service).expect(
                255, "", r"sbx: cp: /f: [^\n]+\n")
        expect([path.name for path in here.iterdir()] == ["old"], f"{list(here.iterdir())}")
        expect((here / "old").read_text() == "old", "the old file changed")


def ctrl_c_ends_copies():
    with StandIn() as service, Scratch() as here:
        service.answers = {
            ("GET", "/boxes/s"): Answer(200, service.sandbox("s")),
            ("GET", "/data/download"): Answer(200, body=b"x", after=30),
        }
        process = start("cp", "s:/f", here / "f", service=service)
        wait_until(lambda: ("GET", "/data/download") in service.requests, "the request")
        process.send_signal(signal.SIGINT)
        Done(process, limit=5).expect(130, "", "")
        expect(not list(here.iterdir()), f"left: {list(here.iterdir())}")
    with Sandbox() as box:
        process = start("cp", "-", f"{box.name}:/tmp/x", stdin=subprocess.PIPE)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: process.poll() is not None, "the end of a copy from a silent pipe", 5)
        process.communicate()
        expect(process.returncode == 143, f"exit code {process.returncode}")


# ---- cp on a terminal ----

def on_a_terminal(*words, service=SERVER, columns=80):
    """Runs sbx with a terminal as stderr; returns exit code, stdout and what the terminal got."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with tempfile.TemporaryFile() as out:
        process = start(*words, service=service, stdout=out, stderr=theirs)
        os.close(theirs)
        shown = b""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if select.select([ours], [], [], 1)[0]:
                try:
                    data = os.read(ours, 65536)
                except OSError:
                    break
                if not data:
                    break
                shown += data
        os.close(ours)
        code = process.wait(10)
        out.seek(0)
        return code, out.read(), shown.decode()


def progress_on_a_terminal():
    with Sandbox() as box, Scratch() as here:
        (here / "größe.bin").write_bytes(bytes(3_000_000))
        for columns in (20, 40, 80, 150):
            code, out, shown = on_a_terminal("cp", here / "größe.bin", f"{box.name}:/tmp/x",
                                             columns=columns)
            expect(code == 0 and out == b"", f"{code} {out!r} {shown!r}")
            lines = shown.split("\r")
            expect(lines[0] == "" and lines[-1] == "\n", f"{shown!r}")
            expect("100 %" in lines[-2], f"the last line is {lines[-2]!r}")
            expect(max(map(len, lines)) < columns, f"too wide for {columns} columns: {shown!r}")
            if columns >= 80:
                expect("größe.bin" in lines[-2] and "[####################]" in lines[-2]
                       and "2.9 MiB of 2.9 MiB" in lines[-2], f"{lines[-2]!r}")
        code, out, shown = on_a_terminal("cp", f"{box.name}:/tmp/x", here / "y")
        expect(code == 0 and "100 %" in shown and "x  " in shown, f"{shown!r}")
        code, out, shown = on_a_terminal("cp", f"{box.name}:/tmp/x", "-")
        expect(code == 0 and out == bytes(3_000_000) and "100 %" in shown, f"{shown!r}")


def quiet_on_a_terminal():
    with Sandbox() as box, Scratch() as here:
        (here / "x").write_bytes(bytes(300_000))
        for option in ("--quiet", "-q"):
            code, _, shown = on_a_terminal("cp", option, here / "x", f"{box.name}:/tmp/x")
            expect(code == 0 and shown == "", f"{shown!r}")


def failure_on_a_terminal():
    """The progress goes away before the message."""
    with StandIn() as service, Scratch() as here:
        service.answers = {
            ("GET", "/boxes/s"): Answer(200, service.sandbox("s")),
            ("GET", "/data/download"): Answer(200, body=bytes(200_000), length=300_000),
        }
        code, _, shown = on_a_terminal("cp", "s:/broken", here / "f", service=service)
        expect(code == 255, f"exit code {code}")
        expect(re.search(r"\r {79}\rsbx: cp: [^\r\n]+\r\n$", shown), f"{shown!r}")


# ---- ls, create, rm, templates ----

BOXES = [
    {"name": "short", "status": "ready", "template_name": "python", "dataplane_url": "http://x/1",
     "id": "1", "created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:06Z"},
    {"name": "größer-als-andere", "status": "provisioning", "dataplane_url": "http://x/2",
     "id": "2"},
    {"name": "ev\x1b]0;il\n", "status": "failed", "status_message": "out of \"luck\"", "id": "3"},
]


def list_as_a_table():
    with StandIn() as service:
        service.answers[("GET", "/boxes")] = Answer(200, {"sandboxes": BOXES})
        lines = sbx("ls", service=service).expect(0, None, "").out.decode().splitlines()
    expect(lines == [
        "NAME               STATUS        TEMPLATE  SNAPSHOT  CREATED",
        "short              ready         python    -         2026-01-02T03:04:05Z",
        "größer-als-andere  provisioning  -         -         -",
        "ev?]0;il?          failed        -         -         -",
    ], "\n".join(lines))


def list_as_json():
    with StandIn() as service:
        service.answers[("GET", "/boxes")] = Answer(200, {"sandboxes": BOXES})
        boxes = json.loads(sbx("ls", "--json", service=service).expect(0, None, "").out)
        service.answers[("GET", "/boxes")] = Answer(200, {"sandboxes": []})
        sbx("ls", "--json", service=service).expect(0, "[]\n", "")
        sbx("ls", "-q", service=service).expect(0, "", "")
        sbx("ls", service=service).expect(0, "NAME  STATUS  TEMPLATE  SNAPSHOT  CREATED\n", "")
    told = [{key: value for key, value in box.items() if value is not None} for box in boxes]
    expect(told == BOXES, f"{boxes}")


def list_of_names():
    with Sandbox() as one, Sandbox() as two:
        names = sbx("ls", "--quiet").expect(0, None, "").out.decode().split("\n")
        expect({one.name, two.name} <= set(names) and names[-1] == "", f"{names}")
        table = sbx("ls").expect(0, None, "").out.decode()
        expect(re.search(rf"^{one.name} +ready ", table, re.MULTILINE), table)


def templates_are_listed():
    with StandIn() as service:
        service.answers[("GET", "/templates")] = Answer(200, {"templates": [
            {"name": "python", "image": "python:3.12-slim", "resources": {"cpu": "500m",
             "memory": "512Mi"}, "id": "1", "created_at": "2026-01-02T03:04:05Z"}]})
        sbx("templates", service=service).expect(
            0, "NAME    IMAGE             CPU   MEMORY  CREATED\n"
               "python  python:3.12-slim  500m  512Mi   2026-01-02T03:04:05Z\n", "")
        sbx("templates", "-q", service=service).expect(0, "python\n", "")
        found = json.loads(sbx("templates", "--json", service=service).expect(0, None, "").out)
        expect(found[0]["image"] == "python:3.12-slim" and found[0]["storage"] is None, f"{found}")


def create_and_remove():
    name = f"test-{os.getpid()}"
    sbx("create", "--name", name).expect(0, f"{name}\n", "")
    expect(SERVER.get(f"/boxes/{name}")["status"] == "ready", "it is not ready")
    sbx("create", "--name", name).expect(255, "", r"sbx: create: [^\n]+\n")
    expect(name in SERVER.sandboxes(), "the second creation deleted the first one's sandbox")
    other = sbx("create", "--no-wait").expect(0, None, "").out.decode().strip()
    expect(other in SERVER.sandboxes(), "there is no sandbox of the printed name")
    sbx("rm", name, "no-such-box", other).expect(255, "", r"sbx: rm: no-such-box: [^\n]+\n")
    expect(not {name, other} & SERVER.sandboxes(), "they are not all deleted")
    sbx("rm", name).expect(255, "", rf"sbx: rm: {name}: [^\n]+\n")


def create_says_what_it_was_told():
    uuid = "01234567-89ab-cdef-0123-456789ABCDEF"
    for words, wanted in ((["--template", "t"], {"template_name": "t"}),
                          (["--snapshot", "s"], {"snapshot_name": "s"}),
                          (["--snapshot", uuid], {"snapshot_id": uuid}),
                          (["--name", "n"], {"name": "n"}), ([], {})):
        with StandIn() as service:
            service.answers[("POST", "/boxes")] = Answer(201, service.sandbox("made"))
            sbx("create", *words, service=service).expect(0, "made\n", "")
            sent = service.document("POST", "/boxes")
            sent.pop("wait_for_ready", None)
            if "name" not in wanted:
                expect(re.fullmatch("sbx-[0-9a-f]{16}", sent.pop("name")), f"{words}: {sent}")
            expect(sent == wanted, f"{words}: {sent}")


def provisioning(service, status, message=None):
    service.answers = {
        ("POST", "/boxes"): Answer(201, service.sandbox("made", "provisioning")),
        ("GET", "/boxes/made/status"): Answer(200, {"status": status, "status_message": message}),
        ("DELETE", "/boxes/made"): Answer(204),
    }


def create_without_waiting():
    with StandIn() as service:
        provisioning(service, "provisioning")
        sbx("create", "--no-wait", service=service).expect(0, "made\n", "")
        expect(service.requests == [("POST", "/boxes")], f"{service.requests}")


def failed_creation_leaves_nothing():
    with StandIn() as service:
        provisioning(service, "failed", "the image has a hole")
        sbx("create", service=service).expect(
            255, "", r"sbx: create: made: [^\n]*the image has a hole[^\n]*\n")
        expect(("DELETE", "/boxes/made") in service.requests, "it is left")
        provisioning(service, "provisioning")
        sbx("create", "--timeout", "0.6", service=service).expect(
            255, "", r"sbx: create: made: [^\n]+\n")
        expect(service.requests.count(("DELETE", "/boxes/made")) == 2, "it is left")


def ctrl_c_undoes_a_creation():
    with StandIn() as service:
        provisioning(service, "provisioning")
        process = start("create", service=service)
        wait_until(lambda: ("GET", "/boxes/made/status") in service.requests, "the waiting")
        process.send_signal(signal.SIGINT)
        Done(process, limit=5).expect(130, "", "")
        expect(service.requests[-1] == ("DELETE", "/boxes/made"), f"{service.requests}")


def ctrl_c_before_the_creation_is_known():
    for words, warning in (([], ""), (["--name", "n"], r"sbx: create: n: it may have been made\n")):
        with StandIn() as service:
            service.answers[("POST", "/boxes")] = Answer(201, service.sandbox("n"), after=30)
            service.otherwise = Answer(204)
            process = start("create", *words, service=service)
            wait_until(lambda: service.requests, "a request", 5)
            process.send_signal(signal.SIGINT)
            Done(process, limit=5).expect(130, "", warning)
            name = service.document("POST", "/boxes")["name"]
            wanted = [("POST", "/boxes")] + ([] if words else [("DELETE", f"/boxes/{name}")])
            expect(service.requests == wanted, f"{service.requests}")


# ---- input, detaching, attaching, killing ----

def input_goes_to_the_command():
    text = "".join(f"zeile {i} ä€😀\n" for i in range(40000)).encode()
    sbx("run", "-i", "--", "cat", data=text).expect(0, text, "")
    sbx("run", "--input", "--", "wc -l", data=b"").expect(0, "0\n", "")
    sbx("run", "-i", "--", "head -c 3", data=b"abcdef").expect(0, "abc", "")


def input_without_end_is_given_up():
    """The command ends although our input does not."""
    process = start("run", "-i", "--", "head -n 1", stdin=subprocess.PIPE)
    process.stdin.write(b"one\n")
    process.stdin.flush()
    expect(process.stdout.read() == b"one\n" and process.wait(20) == 0, "it did not end")
    process.stdin.close()


def input_that_is_no_text():
    sbx("run", "-i", "--", "cat", data=b"good \xff bad").expect(255, "", r".*no UTF-8 text.*\n")
    sbx("run", "-i", "--", "cat", data=b"half \xc3").expect(255, None, r".*within a character\n")


def slow_command_takes_its_input():
    text = b"x" * 99 + b"\n"
    sbx("run", "-i", "--", "sleep 2; wc -c", data=text * 30000).expect(0, "3000000\n", "")


def broken_connections_lose_nothing():
    """A server that breaks every connection of a command after a while, in each way there is."""
    text = "".join(f"{i} ä\n" for i in range(1, 100001)).encode()
    for chaos in ("cut=100000-500000", "fin=100000-500000", "close=1001:100000-500000",
                  "cut=100000-500000,no-started"):
        with LocalServer("--chaos", chaos, "--ring-bytes", str(64 << 20)) as server:
            done = sbx("run", "--", "seq -f '%.0f ä' 100000; exit 9", service=server)
            expect((done.code, done.err) == (9, "") and done.out == text,
                   f"{chaos}: {done.code} {len(done.out)} of {len(text)} bytes {done.err}")


def detached(box, command, *options):
    out = sbx("run", "-d", "--sandbox", box.name, *options, "--", command).expect(0, None, "").out
    name, number = out.decode().rstrip("\n").split(":")
    expect(name == box.name and re.fullmatch(r"[\w-]{16,}", number), f"it printed {out!r}")
    return out.decode().strip()


def detached_command_runs_on():
    with Sandbox() as box:
        command = detached(box, "echo begun; sleep 1; echo ended; exit 6")
        sbx("attach", command).expect(6, "begun\nended\n", "")
        sbx("attach", command).expect(6, "begun\nended\n", "")  # it is remembered


def attach_leaves_on_ctrl_c():
    with Sandbox() as box:
        command = detached(box, "echo begun; sleep 2; echo ended")
        process = start("attach", command)
        expect(process.stdout.readline() == b"begun\n", "it did not begin")
        process.send_signal(signal.SIGINT)
        Done(process).expect(130, b"", "")
        sbx("attach", command).expect(0, "begun\nended\n", "")


def attach_gives_input():
    with Sandbox() as box:
        command = detached(box, "read a; echo got $a", "--input")
        sbx("attach", "-i", command, data=b"this\n").expect(0, "got this\n", "")


def kill_ends_commands():
    with Sandbox() as box:
        commands = [detached(box, "sleep 1000"), detached(box, "sleep 1000")]
        sbx("kill", *commands).expect(0, "", "")
        for command in commands:
            sbx("attach", command).expect(137, "", "")
        sbx("kill", commands[0]).expect(0, "", "")  # it has ended before
        expect(b"sleep" not in box.run("ps ax"), "it runs on")


def unknown_commands():
    with Sandbox() as box:
        for name in ("attach", "kill"):
            sbx(name, f"{box.name}:nothing").expect(255, "", r"sbx: .*no command of this id.*\n")
            sbx(name, "no-such-box:x").expect(255, "", r"sbx: .*not found.*\n")
            sbx(name, "no-colon").expect(255, "", r"sbx: .*not SANDBOX:ID\nTry .*\n")


def ctrl_c_kills_in_an_old_sandbox():
    with Sandbox() as box:
        process = start("run", "--sandbox", box.name, "--", "echo begun; sleep 1000")
        expect(process.stdout.readline() == b"begun\n", "it did not begin")
        process.send_signal(signal.SIGINT)
        Done(process).expect(130, b"", "")
        expect(b"sleep" not in box.run("ps ax"), "it runs on")


def detached_in_a_new_sandbox():
    out = sbx("run", "-d", "--", "sleep 1; echo done").expect(0, None, "").out.decode().strip()
    sbx("attach", out).expect(0, "done\n", "")
    sbx("rm", out.split(":")[0]).expect(0, "", "")
    sbx("run", "--detach", "--image", "x", "true").expect(255, "", r".*exclude each other.*\n.*\n")


def attach_leaves_when_nobody_reads():
    with Sandbox() as box:
        command = detached(box, "while sleep 0.05; do echo y; done")
        process = start("attach", command)
        expect(process.stdout.readline() == b"y\n", "it did not begin")
        process.stdout.close()
        expect(process.wait(20) == 141, f"exit code {process.returncode}")
        expect(b"while" in box.run("ps ax"), "it was killed")


def attach_leaves_in_the_midst_of_output():
    with Sandbox() as box:
        command = detached(box, "exec yes")
        for _ in range(8):
            process = start("attach", command, stdout=subprocess.DEVNULL)
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            Done(process).expect(130, None, "")
            expect(b" yes" in box.run("ps ax"), "it was killed")


def attach_leaves_after_odd_input():
    with Sandbox() as box:
        command = detached(box, "exec sleep 60", "--input")
        sbx("attach", "-i", command, data=b"\xff").expect(255, "", r".*no UTF-8 text.*\n")
        expect(b"sleep 60" in box.run("ps ax"), "it was killed")


def attached(service, *messages, **more):
    """Lets an attach to s:c hear these messages. Returns the answer with what it says itself."""
    answer = Answer(messages=list(messages), **more)
    service.answers = {("GET", "/boxes/s"): Answer(200, service.sandbox("s")),
                       ("GET", "/data/execute/ws"): answer}
    return answer


STARTED = {"type": "started", "command_id": "c", "pid": 7}


def attach_takes_what_is_left():
    """Of a long output the service may keep the end only; the exit code is the command's."""
    with StandIn() as service:
        attached(service, STARTED, {"type": "stdout", "data": "end\n", "offset": 5000},
                 {"type": "exit", "exit_code": 3})
        sbx("attach", "s:c", service=service).expect(
            3, "end\n", r"sbx: attach: 5000 bytes of the output are lost: [^\n]+\n")


def kill_takes_its_time_to_connect():
    with StandIn() as service:
        answer = attached(service, STARTED, after=3, stay=True)
        sbx("kill", "s:c", service=service).expect(0, "", "")
        expect(answer.heard[-1] == {"type": "kill"}, answer.heard)


def interrupted_detaching_kills():
    """Nobody knows the id of the command."""
    with StandIn() as service:
        answer = attached(service, stay=True)
        process = start("run", "-d", "--sandbox", "s", "--", "true", service=service)
        wait_until(lambda: answer.heard, "execute")
        process.send_signal(signal.SIGINT)
        Done(process).expect(130, "", "")
        wait_until(lambda: answer.heard[-1] == {"type": "kill"}, "kill")


def ctrl_c_kills_what_does_not_read():
    """Input that waits in front of the kill does not hold it up."""
    with Sandbox() as box, subprocess.Popen("yes", stdout=subprocess.PIPE) as endless:
        process = start("run", "-i", "--sandbox", box.name, "--", "echo begun; exec sleep 1000",
                        stdin=endless.stdout)
        expect(process.stdout.readline() == b"begun\n", "it did not begin")
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        Done(process).expect(130, b"", "")
        endless.kill()
        expect(b"sleep" not in box.run("ps ax"), "it runs on")


def ctrl_c_without_an_answer():
    """Nobody should believe that a command was killed when the service did not say so."""
    with StandIn() as service:
        answer = attached(service, STARTED, stay=True, obeys=False)
        process = start("run", "--sandbox", "s", "--", "true", service=service)
        wait_until(lambda: answer.heard, "execute")
        process.send_signal(signal.SIGINT)
        Done(process).expect(130, "", r"sbx: run: the command c was killed, but [^\n]+\n")


# ---- terminals ----

class Terminal:
    """sbx with a terminal as all of its streams, until the end of the with block."""

    def __init__(self, *words, **options):
        self.words, self.options = words, options

    def __enter__(self):
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 77, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self.theirs = theirs
        self.shown = b""
        self.process = start(*self.words, stdin=theirs, stdout=theirs, stderr=theirs,
                             **self.options)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)

    def is_raw(self):
        return not termios.tcgetattr(self.theirs)[3] & termios.ICANON

    def type(self, keys):
        os.write(self.ours, keys)

    def look(self):
        while select.select([self.ours], [], [], 0)[0]:
            self.shown += os.read(self.ours, 65536)
        return self.shown

    def ends(self, code):
        wait_until(lambda: self.look() is not None and self.process.poll() is not None, "its end")
        expect(self.process.returncode == code, f"exit code {self.process.returncode}, {self.shown}")
        expect(termios.tcgetattr(self.theirs) == self.before, "the terminal is not as it was")
        return self.look()


def typed(answer):
    return "".join(message["data"] for message in answer.heard if message["type"] == "input")


def attached_terminal_is_left():
    with StandIn() as service:
        answer = attached(service, STARTED, stay=True)
        with Terminal("attach", "-t", "s:c", service=service) as terminal:
            wait_until(terminal.is_raw, "a terminal that is taken")
            terminal.type(b"\x03ls\r")
            wait_until(lambda: typed(answer) == "\x03ls\r", "input")
            terminal.type(b"~~x\r~")
            wait_until(lambda: typed(answer).endswith("x\r"), "more input")
            terminal.type(b".")
            terminal.ends(255)
        expect(typed(answer) == "\x03ls\r~x\r", typed(answer))
        expect({"type": "resize", "cols": 77, "rows": 24} in answer.heard, answer.heard)
        expect({"type": "kill"} not in answer.heard, "it was killed")


def terminal_sends_text_only():
    with StandIn() as service:
        answer = attached(service, STARTED, stay=True)
        with Terminal("attach", "-t", "s:c", service=service) as terminal:
            wait_until(terminal.is_raw, "a terminal that is taken")
            for keys in (b"a\xffb\xc3", b"\xa4\xe2\x82", b"c\xf0\x9f\x98\x80\xc3\xc3\xb6\x80d"):
                terminal.type(keys)
                time.sleep(0.2)
            wait_until(lambda: typed(answer).endswith("d"), "input")
            terminal.type(b"\r~.")  # what is typed in one go with it, is not sent any more
            terminal.ends(255)
        expect(typed(answer) == "abäc😀öd", typed(answer))


def terminal_of_a_command():
    """It knows what terminal it has, and has it as long as it likes."""
    with StandIn() as service:
        answer = attached(service, STARTED, stay=True)
        words = ("run", "-t", "--sandbox", "s")
        with Terminal(*words, "--", "sh", service=service, env={"TERM": "vt220"}) as terminal:
            wait_until(terminal.is_raw, "a terminal that is taken")
            terminal.type(b"~.")
            terminal.ends(255)
        execute = answer.heard[0]
        expect(execute["env"] == {"TERM": "vt220"} and execute["pty"], execute)
        expect(execute["timeout_seconds"] == 0, execute)
        expect(answer.heard[-1] == {"type": "kill"}, answer.heard)
        answer.heard.clear()
        with Terminal(*words, "-e", "TERM=x", "--timeout", "5", "--", "sh",
                      service=service) as terminal:
            wait_until(terminal.is_raw, "a terminal that is taken")
            terminal.type(b"~.")
            terminal.ends(255)
        execute = answer.heard[0]
        expect(execute["env"] == {"TERM": "x"} and execute["timeout_seconds"] == 5, execute)


def messages_in_a_terminal():
    """Also while it is taken, each line begins at the left."""
    with StandIn() as service:
        attached(service, STARTED, {"type": "error", "error_type": "CommandError", "error": "no"},
                 after=0.3)
        with Terminal("run", "-t", "--sandbox", "s", "--", "sh", service=service) as terminal:
            shown = terminal.ends(255)
        expect(re.fullmatch(rb"sbx: run: no\r\n", shown), shown)


def ctrl_c_before_the_terminal_is_taken():
    """While the command does not run yet, Ctrl-C is no key of its."""
    with StandIn() as service:
        answer = attached(service, stay=True)
        with Terminal("run", "-t", "--sandbox", "s", "--", "sh", service=service) as terminal:
            wait_until(lambda: answer.heard, "execute")
            time.sleep(0.3)
            expect(not terminal.is_raw(), "the terminal was taken too early")
            terminal.process.send_signal(signal.SIGINT)
            terminal.ends(130)
        expect(answer.heard[-1] == {"type": "kill"}, answer.heard)


def input_ends_in_a_terminal_of_the_command():
    """A line that is not complete takes a Ctrl-D of its own."""
    for data, said in ((b"", "\x04"), (b"a\n", "a\n\x04"), (b"a", "a\x04\x04")):
        with StandIn() as service:
            answer = attached(service, STARTED, stay=True)
            process = start("run", "-t", "--sandbox", "s", "--", "cat", service=service,
                            stdin=subprocess.PIPE)
            process.stdin.write(data)
            process.stdin.close()
            process.stdin = None
            wait_until(lambda: typed(answer).endswith("\x04"), "the end of the input")
            process.send_signal(signal.SIGINT)
            Done(process).expect(130, "", "")
            expect(typed(answer) == said, f"{typed(answer)!r} for {data}")


TESTS = [
    ("--version prints that of sandbox.h", version),
    ("there is help for everything", help_of_everything),
    ("every option in the help is known", help_names_every_option),
    ("wrong command lines are explained, and nothing is sent", wrong_command_lines),
    ("--endpoint replaces the environment's, the key is sent and never shown", endpoint_and_key),
    ("errors of the service are one clean line", errors_of_the_service_are_one_line),
    ("run ends with the exit code of the command", exit_codes),
    ("run ends with 128 + N when signal N killed the command", command_killed_by_a_signal),
    ("run keeps the streams apart", streams_are_apart),
    ("run prints output at once", output_comes_at_once),
    ("run prints every byte", output_of_every_byte),
    ("run prints everything to a slow reader", much_output_to_a_slow_reader),
    ("run fails when output is lost", lost_output_is_a_failure),
    ("run makes exit codes of what cannot be one", odd_exit_codes),
    ("run --env sets variables", environment),
    ("run --cwd and --shell", directory_and_shell),
    ("run --timeout ends a command", time_limit),
    ("run takes one word as a line for the shell", one_word_is_for_the_shell),
    ("run takes several words as they are", several_words_are_taken_as_they_are),
    ("run deletes the sandbox that it made", new_sandbox_is_deleted),
    ("run --sandbox leaves the sandbox", existing_sandbox_stays),
    ("run --image makes and deletes a template", image_makes_a_temporary_template),
    ("run --template uses the template and leaves it", template_is_used_and_kept),
    ("run --image where there are no templates", image_without_templates_on_the_service),
    ("run deletes nothing after a refused creation", refused_creation_is_not_deleted),
    ("run deletes a sandbox that could not be provisioned", failed_provisioning_is_deleted),
    ("run says so when it cannot delete the sandbox", failed_deletion_is_reported),
    ("signals end run, and the sandbox is deleted", signals_delete_the_sandbox),
    ("Ctrl-C ends run while nobody reads its output", ctrl_c_while_nobody_reads),
    ("Ctrl-C deletes the temporary template too", ctrl_c_deletes_image_too),
    ("Ctrl-C during the creation deletes what may come of it", ctrl_c_during_the_creation),
    ("a second Ctrl-C ends the cleanup", second_ctrl_c_ends_the_cleanup),
    ("a Ctrl-C that comes twice is one", one_ctrl_c_that_comes_twice),
    ("ignored signals stay ignored", ignored_signals_stay_ignored),
    ("a closed pipe ends run quietly", closed_pipe_ends_quietly),
    ("a closed pipe looks to the shell as with other tools", closed_pipe_of_the_shell),
    ("closed standard streams are no sockets", closed_streams_are_no_sockets),
    ("a full disk is an error", full_disk_is_an_error),
    ("cp copies both ways", copies_both_ways),
    ("cp keeps the name in directories", directories_keep_the_name),
    ("cp takes odd names", odd_names),
    ("cp takes stdin and stdout", standard_streams),
    ("cp waits for slow input", slow_input_is_waited_for),
    ("cp is not slow with input from a pipe", input_is_fast_too),
    ("cp needs little memory for a large file", copies_need_little_memory),
    ("cp explains what is missing, and leaves nothing", missing_files),
    ("cp leaves nothing of a broken download", broken_download_leaves_nothing),
    ("Ctrl-C ends cp", ctrl_c_ends_copies),
    ("cp shows the progress on a terminal", progress_on_a_terminal),
    ("cp --quiet shows none", quiet_on_a_terminal),
    ("cp removes the progress when it fails", failure_on_a_terminal),
    ("ls prints a table", list_as_a_table),
    ("ls --json prints everything", list_as_json),
    ("ls --quiet prints names", list_of_names),
    ("templates lists the templates", templates_are_listed),
    ("create and rm", create_and_remove),
    ("create says what it was told", create_says_what_it_was_told),
    ("create --no-wait does not wait", create_without_waiting),
    ("a failed creation leaves nothing", failed_creation_leaves_nothing),
    ("Ctrl-C undoes a creation", ctrl_c_undoes_a_creation),
    ("Ctrl-C undoes a creation that was not answered yet", ctrl_c_before_the_creation_is_known),
    ("input goes to the command", input_goes_to_the_command),
    ("a command that ends before its input does", input_without_end_is_given_up),
    ("input that is no text is refused", input_that_is_no_text),
    ("a slow command takes all of its input", slow_command_takes_its_input),
    ("connections that keep breaking lose nothing", broken_connections_lose_nothing),
    ("a detached command runs on and is attached to", detached_command_runs_on),
    ("attach leaves on Ctrl-C", attach_leaves_on_ctrl_c),
    ("attach gives input", attach_gives_input),
    ("kill ends commands", kill_ends_commands),
    ("commands that nobody knows", unknown_commands),
    ("Ctrl-C kills the command in a sandbox that stays", ctrl_c_kills_in_an_old_sandbox),
    ("a detached command in a new sandbox", detached_in_a_new_sandbox),
    ("attach leaves when nobody reads its output", attach_leaves_when_nobody_reads),
    ("attach leaves in the midst of output", attach_leaves_in_the_midst_of_output),
    ("attach leaves after input that is no text", attach_leaves_after_odd_input),
    ("attach takes what output is left", attach_takes_what_is_left),
    ("kill takes its time to connect", kill_takes_its_time_to_connect),
    ("an interrupted run --detach kills the command", interrupted_detaching_kills),
    ("Ctrl-C kills a command that does not read its input", ctrl_c_kills_what_does_not_read),
    ("Ctrl-C says so if the service does not tell the end", ctrl_c_without_an_answer),
    ("~. leaves the command that a terminal is attached to", attached_terminal_is_left),
    ("a terminal sends text only", terminal_sends_text_only),
    ("run --pty says what terminal it is, and sets no limit", terminal_of_a_command),
    ("messages in a terminal that is taken", messages_in_a_terminal),
    ("Ctrl-C before the terminal is taken", ctrl_c_before_the_terminal_is_taken),
    ("run --pty ends the input of an open line", input_ends_in_a_terminal_of_the_command),
]


def main():
    with SERVER:
        run([(name, test) for name, test in TESTS if len(sys.argv) < 2 or sys.argv[1] in name])


if __name__ == "__main__":
    main()
