#!/usr/bin/env python3
"""Runs test programs, shows the output of those that fail and what others skip, and counts.

    run.py [--tap COMMAND..] [--exit COMMAND..] [--serial COMMAND..] [--under WRAPPER] [--limit S]

A COMMAND is one argument, words separated by spaces; a word that ends in / stands for all the files
of that directory, and there must be some.

  --tap      programs that report each test in TAP (https://testanything.org), as cmocka does when
             asked. Saying nothing, less than announced, or exiting with another status than 0 without
             naming a failed test is a failure.
  --exit     programs that may report so; if they do not, each counts as one test and its exit status
             tells.
  --serial   like --exit, but one at a time, for programs that look at the clock.
  --under    a command to put in front of every other, such as valgrind.
  --limit    seconds that one program may take (300).

The last line is "N passed, N failed", with ", N skipped" where any were. Exits with 1 if any failed.
"""

import argparse
import concurrent.futures
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

PLAN = re.compile(r"^1\.\.(\d+)", re.MULTILINE)
# Not only at the start of a line: what a test prints itself may lack its newline; but not in a line
# of diagnostics. cmocka 1.1 says "not ok 3 # SKIP name" of a test that was skipped.
RESULT = re.compile(r"^(?!#).*?(not )?ok \d+ *(# SKIP|- )", re.MULTILINE)

# No test talks to a service that happens to be configured.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items()
       if not name.startswith(("LANGSMITH_", "LANGCHAIN_"))},
    "CMOCKA_MESSAGE_OUTPUT": "TAP",
    "ASAN_OPTIONS": "detect_leaks=1:handle_segv=2:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def words(command):
    """The command as a list, directories replaced by their files."""
    result = []
    for word in shlex.split(command):
        if word.endswith("/"):
            files = sorted(str(path) for path in Path(word).glob("*") if path.is_file())
            if not files:
                raise FileNotFoundError(f"there is no file in {word}")
            result += files
        else:
            result.append(word)
    return result


def count(text, status, must_report):
    """How many tests passed, failed and were skipped, by what a program printed and its status."""
    planned = sum(int(number) for number in PLAN.findall(text))
    if not planned and not must_report and not RESULT.search(text):
        return Counter(passed=int(status == 0), failed=int(status != 0))
    found = Counter("skipped" if kind == "# SKIP" else "failed" if no else "passed"
                    for no, kind in RESULT.findall(text))
    reported = sum(found.values())
    found["failed"] += max(planned - reported, 0)
    if not planned or reported > planned or (status != 0 and not found["failed"]):
        found["failed"] += 1
    return found


def end_group(leader):
    """Ends what is left of a program and of what it started."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass


def run(command, wrapper, must_report, limit):
    """Runs one program; returns its counts, its output and the seconds it took."""
    start = time.monotonic()
    note = ""
    try:
        process = subprocess.Popen(wrapper + words(command), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   start_new_session=True, env=ENVIRONMENT)
    except OSError as error:
        return Counter(failed=1), f"{error}\n", 0.0
    try:
        output = process.communicate(timeout=limit)[0]
    except subprocess.TimeoutExpired:
        end_group(process.pid)
        output = process.communicate()[0]
        note = f"took longer than {limit} seconds\n"
    finally:
        end_group(process.pid)
    text = output.decode("utf-8", "replace")
    if process.returncode < 0 and not note:
        note = f"ended by {signal.Signals(-process.returncode).name}\n"
    elif process.returncode > 0:
        note = f"exit status {process.returncode}\n"
    return count(text, process.returncode, must_report), text + note, time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description="Runs test programs and counts.")
    parser.add_argument("--tap", nargs="*", default=[], metavar="COMMAND")
    parser.add_argument("--exit", nargs="*", default=[], metavar="COMMAND")
    parser.add_argument("--serial", nargs="*", default=[], metavar="COMMAND")
    parser.add_argument("--under", default="", metavar="WRAPPER")
    parser.add_argument("--limit", type=int, default=300, metavar="SECONDS")
    options = parser.parse_args()
    wrapper = shlex.split(options.under)
    total = Counter()

    def report(command, result):
        found, output, seconds = result
        total.update(found)
        said = ", ".join(f"{found[kind]} {kind}" for kind in ("passed", "failed", "skipped")
                         if found[kind])
        print(f"{'FAIL' if found['failed'] else 'ok  '} {command}: {said} ({seconds:.1f} s)")
        if found["failed"]:
            print(output.rstrip("\n"))
        elif found["skipped"]:
            print("\n".join(line for line in output.splitlines() if "# SKIP" in line))
        sys.stdout.flush()

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        started = {pool.submit(run, command, wrapper, must_report, options.limit): command
                   for commands, must_report in ((options.tap, True), (options.exit, False))
                   for command in commands}
        for future in concurrent.futures.as_completed(started):
            report(started[future], future.result())
    for command in options.serial:
        report(command, run(command, wrapper, False, options.limit))

    if not total:
        sys.exit("run.py: there is nothing to run")
    print(f"{total['passed']} passed, {total['failed']} failed"
          + (f", {total['skipped']} skipped" if total["skipped"] else ""))
    sys.exit(total["failed"] > 0)


if __name__ == "__main__":
    main()
