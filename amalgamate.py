#!/usr/bin/env python3
"""Makes sandbox.h, the one file that users take, from the parts in src/.

    amalgamate.py                          write sandbox.h
    amalgamate.py --check                  exit with 1 if sandbox.h is not what the parts say
    amalgamate.py -o FILE                  write FILE instead
    amalgamate.py --bundle posix FILE      write FILE with transports/sandbox_posix.h inside;
                                           several transports are separated by commas

The result depends on the parts alone. Every comment is kept; of the code, only the #include lines of
other parts are left out.
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent

MANUAL = "manual.txt"
DECLARATIONS = ["public.h"]
# In the order in which they stand in sandbox.h: a part may call those before it.
IMPLEMENTATION = [
    "internal.h",
    "base.c", "buffer.c", "text.c", "number.c",
    "json.c", "url.c", "http1.c", "websocket.c", "multipart.c",
    "connection.c", "exchange.c", "op.c", "response.c", "request.c",
    "control.c", "files.c", "input.c", "command.c",
    "client.c",
]

# At the left margin only: what is indented is an example in a comment.
LOCAL_INCLUDE = re.compile(r'^#include ".*\n', re.MULTILINE)


def read(path):
    """The text of a file in the repository."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except FileNotFoundError:
        sys.exit(f"amalgamate.py: {path} is in the list of parts, but there is no such file")


def comment(path):
    """A file of plain text as a C comment."""
    text = read(path)
    if "*/" in text:
        sys.exit(f"amalgamate.py: {path} holds the end of a C comment; use // in its examples")
    return f"/*\n{text.strip(chr(10))}\n*/\n"


def part(path):
    """One source file under a heading, without its local includes and the gaps they leave."""
    text = LOCAL_INCLUDE.sub("", read(path))
    text = re.sub(r"\n{3,}", "\n\n", text).strip("\n")
    heading = f"/* ==== {path} ".ljust(97, "=") + " */"
    return f"{heading}\n\n{text}\n"


def check_list():
    """Every file in src/ has its place in the lists above; that each exists, read() sees."""
    listed = {MANUAL, *DECLARATIONS, *IMPLEMENTATION}
    for path in sorted((ROOT / "src").iterdir()):
        if path.name not in listed:
            sys.exit(f"amalgamate.py: src/{path.name} has no place in the list of parts: add it there")


def amalgamate(transports):
    """The whole text of sandbox.h."""
    check_list()
    return "\n".join([
        comment(f"src/{MANUAL}"),
        "/* Made by amalgamate.py from the files that the headings name. Change those. */\n",
        *[part(f"src/{name}") for name in DECLARATIONS],
        # Outside the guard of the declarations: a file may include this header once for them, and
        # again for the implementation. The functions have C linkage in C++ since they are declared so.
        "#ifdef SANDBOX_IMPLEMENTATION\n"
        "#ifndef SBX_IMPLEMENTATION_DONE\n"
        "#define SBX_IMPLEMENTATION_DONE\n",
        *[part(f"src/{name}") for name in IMPLEMENTATION],
        "#endif /* SBX_IMPLEMENTATION_DONE */\n"
        "#endif /* SANDBOX_IMPLEMENTATION */\n",
        *[part(f"transports/sandbox_{name}.h") for name in transports],
        comment("LICENSE"),
    ])


def main():
    parser = argparse.ArgumentParser(description="Makes sandbox.h from the parts in src/.")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="only say whether sandbox.h is fresh")
    action.add_argument("-o", metavar="FILE", help="write FILE instead of sandbox.h")
    action.add_argument("--bundle", nargs=2, metavar=("TRANSPORTS", "FILE"),
                        help="write FILE with the transports (names, commas) inside")
    options = parser.parse_args()

    header = ROOT / "sandbox.h"
    if options.check:
        if not header.exists() or header.read_text(encoding="utf-8") != amalgamate([]):
            sys.exit("sandbox.h is not what src/ says: run `make amalgamate` and commit the result")
    elif options.bundle:
        transports, out = options.bundle
        Path(out).write_text(amalgamate(transports.split(",")), encoding="utf-8")
    else:
        (Path(options.o) if options.o else header).write_text(amalgamate([]), encoding="utf-8")


if __name__ == "__main__":
    main()
