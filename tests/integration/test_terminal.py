#!/usr/bin/env python3
"""Types into build/sbx and reads the screen, in tmux: shells and full-screen programs in a sandbox, and
what is left of the terminal afterwards. Reports in TAP."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from services import BUILD, LocalServer  # noqa: E402
from tap import expect, run  # noqa: E402

SERVER = LocalServer()
SBX = BUILD / "sbx"


class Terminal:
    """A shell in tmux, until the end of the with block."""

    def __init__(self, columns=80, rows=24):
        self.size = ["-x", str(columns), "-y", str(rows)]

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory()
        self.environment = SERVER.environment(TERM="xterm-256color")
        self.tmux("-f", "/dev/null", "new-session", "-d", *self.size,
                  "env PS1='$ ' bash --norc --noprofile")
        try:
            self.wait_for(r"\$ ?$")
            self.run("sbx() { %s \"$@\"; }" % SBX)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.tmux("kill-server")
        self.directory.cleanup()

    def tmux(self, *words):
        return subprocess.run(["tmux", "-S", Path(self.directory.name) / "socket", *words],
                              env=self.environment, check=True, text=True,
                              stdout=subprocess.PIPE).stdout

    def type(self, *keys):
        """Names of keys, or texts."""
        self.tmux("send-keys", *keys)

    def run(self, line):
        self.type("-l", line)
        self.type("Enter")

    def screen(self):
        lines = self.tmux("capture-pane", "-p", "-J").splitlines()
        return "\n".join(line.rstrip() for line in lines).rstrip("\n")

    def wait_for(self, pattern, seconds=8):
        """Waits until the pattern is found on the screen; returns the match."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = re.search(pattern, self.screen(), re.MULTILINE)
            if found:
                return found
            time.sleep(0.05)
        expect(False, f"there is no {pattern!r} on the screen:\n{self.screen()}")

    def settings(self):
        """What stty says of this terminal, asked for by the shell that it belongs to."""
        self.run("clear; stty -g; echo asked")
        return self.wait_for(r"^([0-9a-f:]{20,})\nasked$")[1]


def shell_is_a_terminal():
    with Terminal(90, 30) as terminal:
        before = terminal.settings()
        terminal.run("sbx shell --cwd /tmp")
        terminal.wait_for(r"^\S*\$ ?$")
        terminal.run("tty; stty size; echo in $PWD as $TERM")
        terminal.wait_for(r"^/dev/pts/\d+\n30 90\nin /tmp as (tmux|screen)\S*$")
        terminal.run("exit 7")
        terminal.wait_for(r"^exit\n\$ ?$")
        terminal.run("echo code $?")
        terminal.wait_for(r"^code 7$")
        expect(terminal.settings() == before, "the terminal is not as it was")
        expect(not SERVER.sandboxes(), f"left: {SERVER.sandboxes()}")


def ctrl_c_goes_inside():
    with Terminal() as terminal:
        terminal.run("sbx shell")
        terminal.wait_for(r"^\S*\$ ?$")
        terminal.run("sleep 100")
        time.sleep(0.5)
        terminal.type("C-c")
        terminal.wait_for(r"\^C")
        terminal.run("echo still here $?")
        terminal.wait_for(r"^still here 130$")
        terminal.run("cat")
        terminal.run("typed")
        terminal.wait_for(r"^typed\ntyped$")
        terminal.type("C-d")
        terminal.run("echo back")
        terminal.wait_for(r"^back$")
        terminal.run("sleep 1000 & jobs")
        terminal.wait_for(r"^\[1\].*Running")
        terminal.type("C-d")
        terminal.wait_for(r"^exit|There are running jobs")
        terminal.type("C-d")
        terminal.wait_for(r"^\$ ?$")


def window_size_follows():
    with Terminal(80, 24) as terminal:
        terminal.run("sbx shell")
        terminal.wait_for(r"^\S*\$ ?$")
        terminal.run("trap 'echo now $(stty size)' WINCH")
        terminal.run("stty size")
        terminal.wait_for(r"^24 80$")
        terminal.tmux("resize-window", "-x", "101", "-y", "33")
        time.sleep(0.5)
        terminal.run("stty size")
        terminal.wait_for(r"^33 101$")
        terminal.wait_for(r"now 33 101")


def python_can_be_talked_to():
    with Terminal() as terminal:
        terminal.run("sbx run -t -- python3 -q")
        terminal.wait_for(r"^>>> ?$")
        terminal.run("6 * 7")
        terminal.wait_for(r"^42$")
        terminal.run("name = input('Name: ')")
        terminal.wait_for(r"^Name: ?$")
        terminal.run("wörld")
        terminal.run("print('hello', name)")
        terminal.wait_for(r"^hello wörld$")
        terminal.type("C-d")
        terminal.wait_for(r"^\$ ?$")


def vi_edits_a_file():
    with Terminal() as terminal:
        terminal.run("sbx create --name edit")
        terminal.wait_for(r"^edit$")
        terminal.run("sbx run -t --sandbox edit -- vi /tmp/file; echo left $?")
        terminal.wait_for(r"^~")
        terminal.type("i", "first line", "Enter", "second line", "Escape")
        terminal.wait_for(r"^first line\nsecond line$")
        terminal.run(":wq")
        terminal.wait_for(r"^left 0$")
        terminal.run("clear; sbx run --sandbox edit -- cat /tmp/file")
        terminal.wait_for(r"^first line\nsecond line\n\$ ?$")
        terminal.run("clear; sbx rm edit; echo gone")
        terminal.wait_for(r"^gone$")


def top_draws_a_screen():
    with Terminal(100, 20) as terminal:
        before = terminal.settings()
        terminal.run("sbx run -t -- top -d 1")
        terminal.wait_for(r"^top - ")
        terminal.wait_for(r"^ +\d+ user +\S+ +\S+ .* top *$")
        terminal.type("q")
        terminal.wait_for(r"^\$ ?$")
        expect(terminal.settings() == before, "the terminal is not as it was")


def tilde_dot_ends_it():
    with Terminal() as terminal:
        before = terminal.settings()
        terminal.run("sbx shell; echo left $?")
        terminal.wait_for(r"^\S*\$ ?$")
        terminal.run("cat")
        terminal.run("~~ and a~.b are text")
        terminal.wait_for(r"^~ and a~\.b are text\n~ and a~\.b are text$")
        terminal.type("~", ".")
        terminal.wait_for(r"^left 255$")
        expect(terminal.settings() == before, "the terminal is not as it was")
        expect(not SERVER.sandboxes(), f"left: {SERVER.sandboxes()}")


def signals_restore_the_terminal():
    for number, code in ((signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        with Terminal() as terminal:
            before = terminal.settings()
            terminal.run("(sh -c 'echo $PPID' > %s/pid; exec %s shell); echo left $?"
                         % (terminal.directory.name, SBX))
            terminal.wait_for(r"^\S*\$ ?$")
            pid = int((Path(terminal.directory.name) / "pid").read_text())
            os.kill(pid, number)
            terminal.wait_for(rf"^.*left {code}$")
            expect(terminal.settings() == before, "the terminal is not as it was")
            expect(not SERVER.sandboxes(), f"left: {SERVER.sandboxes()}")


def failures_leave_the_terminal_alone():
    with Terminal() as terminal:
        before = terminal.settings()
        terminal.run("sbx shell no-such-sandbox; echo left $?")
        terminal.wait_for(r"not found.*\n(.*\n)?left 255$")
        expect(terminal.settings() == before, "the terminal is not as it was")


def reload_is_not_seen():
    """The server drops every connection; whoever types does not notice."""
    with Terminal() as terminal:
        terminal.run("sbx shell")
        terminal.wait_for(r"^\S*\$ ?$")
        for i in range(3):
            SERVER.process.send_signal(signal.SIGHUP)
            time.sleep(0.3)
            terminal.run(f"echo $(({i} + 40)) is the number")
            terminal.wait_for(rf"^{i + 40} is the number$")
        terminal.run("exit")
        terminal.wait_for(r"^exit\n\$ ?$")


def attached_terminal():
    with Terminal() as terminal:
        terminal.run("sbx create --name far")
        terminal.wait_for(r"^far$")
        terminal.run("id=$(sbx run -d -t --sandbox far -- python3 -q)")
        terminal.run("sbx attach -t $id")
        terminal.wait_for(r"^>>> ?$")
        terminal.run("print(6 * 7)")
        terminal.wait_for(r"^42$")
        terminal.run("exit()")
        terminal.wait_for(r"^\$ ?$")
        terminal.run("clear; sbx rm far; echo gone")
        terminal.wait_for(r"^gone$")


TESTS = [
    ("sbx shell is a terminal in a new sandbox", shell_is_a_terminal),
    ("Ctrl-C and Ctrl-D go inside", ctrl_c_goes_inside),
    ("the window's size goes inside", window_size_follows),
    ("Python can be talked to", python_can_be_talked_to),
    ("vi edits a file", vi_edits_a_file),
    ("top draws a screen", top_draws_a_screen),
    ("~. ends sbx", tilde_dot_ends_it),
    ("signals restore the terminal", signals_restore_the_terminal),
    ("failures leave the terminal alone", failures_leave_the_terminal_alone),
    ("a reload of the server is not seen", reload_is_not_seen),
    ("a terminal can be attached to", attached_terminal),
]


def main():
    with SERVER:
        run([(name, test) for name, test in TESTS if len(sys.argv) < 2 or sys.argv[1] in name])


if __name__ == "__main__":
    main()
