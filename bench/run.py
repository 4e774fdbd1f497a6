#!/usr/bin/env python3
"""Counts instructions: ours and those of other libraries, in one run, in one table.

    bench/run.py [--quick] [--clock] [--yyjson DIR]

Builds the programs in bench/ with -O2 -DNDEBUG, once as they are and once with SBX_NO_SIMD, into
build/bench/, and runs each job under callgrind with two counts; the difference is the cost of one
message, without start-up. Instructions can be compared from run to run and from machine to machine,
times cannot, so the latter are only shown if --clock asks for them.

  --quick    fewer sizes
  --clock    nanoseconds per byte besides, of the programs run by themselves
  --yyjson   where yyjson.h and yyjson.c are; few systems have a package of it

CC and CPPFLAGS are heeded. Peers that are not installed are left out, and named at the end.
"""

import argparse
import concurrent.futures
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "bench"
CC = shlex.split(os.environ.get("CC", "gcc"))
CPPFLAGS = shlex.split(os.environ.get("CPPFLAGS", ""))

SIZES = [64, 1024, 16384, 65536]
QUICK_SIZES = [1024, 16384]

# Callgrind counts `rep movsb` as one instruction for each byte: glibc must not use it for copies.
ENVIRONMENT = {**os.environ,
               "GLIBC_TUNABLES": "glibc.cpu.x86_rep_movsb_threshold=0x7fffffffffff"}

# Macro, header, library, Debian's package.
PEERS = {
    "wslay": ("BENCH_WSLAY", "wslay/wslay.h", "-lwslay", "libwslay-dev"),
    "cjson": ("BENCH_CJSON", "cjson/cJSON.h", "-lcjson", "libcjson-dev"),
    "jansson": ("BENCH_JANSSON", "jansson.h", "-ljansson", "libjansson-dev"),
    "yyjson": ("BENCH_YYJSON", "yyjson.h", "-lyyjson", ""),
}

# Program, and its part of the table: a heading, then jobs with what they are called there. Ours run
# in both builds; a peer's name is part of its job's name.
TABLE = [
    ("websocket", "UTF-8 check", [
        ("utf8-ascii", "ASCII"),
        ("utf8", "a build's log"),
        ("utf8-dense", "nothing but other scripts"),
    ]),
    ("websocket", "WebSocket: reading text frames, UTF-8 check included", [
        ("read-ascii", "ASCII"),
        ("read", "a build's log"),
        ("wslay-read", "  wslay"),
        ("read-masked", "a build's log, masked"),
    ]),
    ("websocket", "WebSocket: header and masked payload", [
        ("write", "ours"),
        ("wslay-write", "  wslay"),
    ]),
    ("json", "JSON: a stdout message, its data unescaped", [
        ("sbx", "ours"),
        ("sbx-checked", "ours, UTF-8 already checked"),
        ("yyjson", "  yyjson, in place, from a pool"),
        ("cjson", "  cJSON"),
        ("jansson", "  jansson"),
    ]),
    ("stream", "A stdout message from the wire: WebSocket, UTF-8, JSON", [
        ("sbx", "ours"),
        ("wslay-yyjson", "  wslay and yyjson"),
        ("wslay-cjson", "  wslay and cJSON"),
        ("wslay-jansson", "  wslay and jansson"),
    ]),
    ("client", "A command's output through the whole client", [
        ("run", "into a callback"),
        ("collect", "collected"),
    ]),
]


def compiles(source, *arguments):
    """Whether a program can be compiled and linked."""
    with tempfile.TemporaryDirectory() as directory:
        command = [*CC, *CPPFLAGS, "-x", "c", "-", "-o", f"{directory}/a", *arguments]
        return subprocess.run(command, input=source, text=True, check=False,
                              capture_output=True).returncode == 0


def find_peers(yyjson):
    """The flags for each peer that is there."""
    found = {}
    for name, (macro, header, library, _) in PEERS.items():
        flags = [f"-I{yyjson}", f"{yyjson}/yyjson.c"] if name == "yyjson" and yyjson else [library]
        source = f"#include <stddef.h>\n#include <sys/types.h>\n#include <{header}>\n" \
                 "int main(void) { return 0; }\n"
        if compiles(source, "-xnone", *flags):
            found[name] = [f"-D{macro}", *flags]
    return found


def peers_of(job):
    """The libraries that a job needs."""
    return [name for name in PEERS if name in job.split("-")]


def build(program, portable, peers):
    """Compiles bench/PROGRAM.c and returns the file, or None if there is no such source."""
    source = ROOT / "bench" / f"{program}.c"
    if not source.exists():
        return None
    binary = OUT / (program + ("-portable" if portable else ""))
    flags = ["-DSBX_NO_SIMD"] if portable else [flag for flags in peers.values() for flag in flags]
    command = [*CC, "-O2", "-g", "-DNDEBUG", *CPPFLAGS, f"-I{ROOT}", str(source), "-o", str(binary),
               *flags]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(f"bench/run.py: {program}.c does not compile")
    return binary


def run(command, environment=None):
    """Runs a command to its end, or ends this program with what it said."""
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"bench/run.py: {shlex.join(command)} failed:\n{done.stderr}")
    return done


def instructions(arguments, count):
    """What callgrind counts for one of `count` rounds."""
    total = []
    for rounds in (count, 2 * count):
        text = run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
                    *arguments, str(rounds)], ENVIRONMENT).stderr
        total.append(int(re.search(r"Collected : (\d+)", text).group(1)))
    return (total[1] - total[0]) / count


def nanoseconds(arguments, count):
    """How long one round takes: the best of several differences."""
    best = None
    for _ in range(7):
        taken = []
        for rounds in (count, 3 * count):
            start = time.monotonic()
            run([*arguments, str(rounds)])
            taken.append(time.monotonic() - start)
        one = (taken[1] - taken[0]) / (2 * count) * 1e9
        best = one if best is None else min(best, one)
    return max(best, 0.0)


def wire_size(program, size):
    """How many bytes a message of this size is where the program takes it from: with its header."""
    if program not in ("stream", "client"):
        return size
    return size + (2 if size < 126 else 4 if size < 65536 else 10)


def jobs_of(peers, binaries):
    """(heading, label, program, binary, job) for each line of the table, in order."""
    for program, heading, jobs in TABLE:
        for job, label in jobs:
            needs = peers_of(job)
            if any(peer not in peers for peer in needs):
                continue
            for variant in ("", ", portable C") if not needs else ("",):
                binary = binaries.get((program, bool(variant)))
                if binary:
                    yield heading, label + variant, program, binary, job


def show(title, lines, results, sizes, unit):
    """Prints one table."""
    print(f"\n{title}\n{'':44}" + "".join(f"{size:>10}" for size in sizes) + f"   {unit}")
    heading = None
    for line in lines:
        if line[0] != heading:
            heading = line[0]
            print(heading)
        cells = "".join(f"{results[line, size] / wire_size(line[2], size):10.3f}" for size in sizes)
        print(f"    {line[1]:40}{cells}{results[line, sizes[0]]:10.0f}")


PROFILES = [
    ("everything", []),
    ("without the control plane", ["-DSBX_NO_CONTROL"]),
    ("without files", ["-DSBX_NO_FILES"]),
    ("without WebSocket", ["-DSBX_NO_WEBSOCKET"]),
    ("commands by HTTP only", ["-DSBX_NO_CONTROL", "-DSBX_NO_FILES", "-DSBX_NO_WEBSOCKET"]),
]


def show_code_sizes():
    """What the library adds to a program that calls all of it."""
    print("\nCode and constants, -Os, bytes")
    for label, flags in PROFILES:
        with tempfile.TemporaryDirectory() as directory:
            run([*CC, *CPPFLAGS, "-Os", "-DNDEBUG", "-DSANDBOX_IMPLEMENTATION", *flags, "-x", "c",
                 "-c", str(ROOT / "sandbox.h"), "-o", f"{directory}/a.o"])
            text = run(["size", f"{directory}/a.o"]).stdout.splitlines()[1].split()[0]
        print(f"    {label:40}{text:>10}")


def main():
    parser = argparse.ArgumentParser(description="Counts instructions, ours and those of others.")
    parser.add_argument("--quick", action="store_true", help="fewer sizes")
    parser.add_argument("--clock", action="store_true", help="times besides")
    parser.add_argument("--yyjson", metavar="DIR", help="where yyjson.h and yyjson.c are")
    options = parser.parse_args()
    if not shutil.which("valgrind"):
        sys.exit("bench/run.py: valgrind is not installed")
    OUT.mkdir(parents=True, exist_ok=True)

    sizes = QUICK_SIZES if options.quick else SIZES
    peers = find_peers(options.yyjson)
    programs = sorted({program for program, _, _ in TABLE} | {"http1"})
    binaries = {(program, portable): build(program, portable, peers)
                for program in programs for portable in (False, True)}
    lines = list(jobs_of(peers, binaries))

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        counted = {(line, size): pool.submit(instructions, [str(line[3]), line[4], str(size)],
                                             max(4, 100000 // size))
                   for line in lines for size in sizes}
        heads = {label: pool.submit(instructions, [str(binaries["http1", portable]), "ours"], 100)
                 for label, portable in (("ours", False), ("ours, portable C", True))
                 if binaries["http1", portable]}
        results = {key: future.result() for key, future in counted.items()}
        heads = {label: future.result() for label, future in heads.items()}

    compiler = run([*CC, "--version"]).stdout.splitlines()[0]
    print(f"{compiler}, -O2, {platform.machine()}")
    show("Instructions per byte, for messages of so many bytes", lines, results, sizes,
         f"per message of {sizes[0]}")
    if heads:
        print("HTTP/1.1: a response head of 394 bytes with 10 headers, instructions per head")
        for label, count in heads.items():
            print(f"    {label:40}{count:10.0f}")
    if options.clock:
        times = {(line, size): nanoseconds([str(line[3]), line[4], str(size)],
                                           max(20, 20000000 // size))
                 for line in lines for size in sizes}
        show("Nanoseconds per byte", lines, times, sizes, f"per message of {sizes[0]}")
    show_code_sizes()
    missing = [f"{name} ({package or 'see --yyjson'})"
               for name, (_, _, _, package) in PEERS.items() if name not in peers]
    if missing:
        print("\nNot measured, because they are not installed: " + ", ".join(missing))


if __name__ == "__main__":
    main()
