"""Runs Python functions as tests and reports them in TAP, as run.py reads it."""

import concurrent.futures
import re
import signal
import subprocess
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# A job in the background ignores these, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


class Failure(Exception):
    """A test failed; the text says why."""


def expect(condition, message):
    if not condition:
        raise Failure(message)


def execute(*command, cwd=ROOT, env=None):
    """Runs a command that must succeed; returns what it printed."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=env, text=True, check=False,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    expect(done.returncode == 0,
           f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout}")
    return done.stdout


def run(tests, jobs=1):
    """Runs the tests, pairs of a name and a function, and exits with 1 if any raised something."""
    print(f"1..{len(tests)}")
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(test) for _, test in tests]
        for number, ((name, _), test) in enumerate(zip(tests, running), 1):
            error = test.exception()
            print(f"{'not ok' if error else 'ok'} {number} - {name}")
            if error:
                failed += 1
                text = str(error) if isinstance(error, Failure) else \
                    "".join(traceback.format_exception(type(error), error, error.__traceback__))
                print(re.sub("^", "# ", text.rstrip("\n"), flags=re.MULTILINE))
            sys.stdout.flush()
    sys.exit(failed > 0)
