#!/usr/bin/env python3
"""Compiles every C example of the documentation, and runs the README's first.

Reports in TAP. The examples are
  - in README.md, the blocks that start with ```c;
  - in src/manual.txt, what is indented by four spaces from a line "    // example: NAME" on.

Each must compile without a warning as C99, and, if it has a main, as C++11. One that has no main is a
fragment: its preprocessor lines go to the top of the file, and its statements into a function that
declares `client`, `sandbox` and `err`. If a line is just "{" the fragment defines functions itself.

The README's first example is compiled by "cc main.c" in a directory that has nothing else but
sandbox.h and sandbox_posix.h, is run against build/sandboxd, and must print what the README shows in
the block that follows it; lines there that start with "$ " are commands, not output.
"""

import os
import re
import shutil
import tempfile
import textwrap
from pathlib import Path

from services import LocalServer
from tap import ROOT, execute, expect, run

WARNINGS = ["-Wall", "-Wextra", "-Werror"]
C99 = ["gcc", "-std=c99", "-D_POSIX_C_SOURCE=200809L", *WARNINGS]
# In C++ alone gcc takes offence at {0}, which is how the options of this library are initialized.
CPP11 = ["g++", "-std=c++11", *WARNINGS, "-Wno-missing-field-initializers", "-x", "c++"]

PROLOGUE = """\
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "sandbox.h"
#include "sandbox_posix.h"
"""
FUNCTION = """\
static int fragment(sbx_client *client, sbx_sandbox *sandbox, sbx_error err)
{
%s
    return 0;
}
"""


def readme_blocks():
    """All fenced blocks of the README: line, language, text."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start()) + 1, found[1], found[2])
            for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


def manual_examples():
    """The examples of the manual: name, text."""
    text = (ROOT / "src/manual.txt").read_text(encoding="utf-8")
    return [(found[1], textwrap.dedent(found[2]))
            for found in re.finditer(r"^    // example: (.*)\n((?:    .*\n|[ \t]*\n)*)", text, re.MULTILINE)]


def has_main(text):
    return re.search(r"\bmain\(", text) is not None


def complete(text):
    """An example as a file that compiles by itself."""
    if has_main(text):
        return text
    lines = text.splitlines()
    top = "\n".join(line for line in lines if line.startswith("#"))
    body = "\n".join(line for line in lines if not line.startswith("#"))
    return f"{top}\n{PROLOGUE}\n{body if '{' in lines else FUNCTION % textwrap.indent(body, '    ')}"


def compiles(text, compiler):
    # Nobody calls a fragment, and it shows how to make a thing, not what to do with it.
    tolerance = [] if has_main(text) else ["-Wno-unused"]
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory, "main.c")
        source.write_text(complete(text), encoding="utf-8")
        execute(*compiler, *tolerance, "-I.", "-Itransports", "-c", "-o", Path(directory, "main.o"), source)


def first_example_runs(blocks):
    places = [index for index, (_, language, _) in enumerate(blocks) if language == "c"]
    expect(places, "README.md has no block of C")
    following = blocks[places[0] + 1:places[0] + 2]
    expect(following and following[0][1] != "c", "no block with its output follows")
    output = re.sub(r"^\$ .*\n", "", following[0][2], flags=re.MULTILINE)
    expect(output, f"the block of README.md:{following[0][0]} shows no output")
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory, "project")
        place.mkdir()
        shutil.copy(ROOT / "sandbox.h", place)
        shutil.copy(ROOT / "transports/sandbox_posix.h", place)
        Path(place, "main.c").write_text(blocks[places[0]][2], encoding="utf-8")
        execute("cc", "main.c", cwd=place)
        with LocalServer() as server:
            printed = execute("./a.out", cwd=place, env=server.environment())
    expect(printed == output, f"README.md shows:\n{output}\nthe program printed:\n{printed}")


def main():
    blocks = readme_blocks()
    examples = [(f"README.md:{line}", text) for line, language, text in blocks if language == "c"] \
        + [(f"src/manual.txt: {name}", text) for name, text in manual_examples()]
    tests = [("README.md: the first program runs", lambda: first_example_runs(blocks))]
    for name, text in examples:
        tests.append((f"{name} is C99", lambda text=text: compiles(text, C99)))
        if has_main(text):
            tests.append((f"{name} is C++11", lambda text=text: compiles(text, CPP11)))
    run(tests, jobs=os.cpu_count())


if __name__ == "__main__":
    main()
