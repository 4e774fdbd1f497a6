#!/usr/bin/env python3
"""Compiles sandbox.h in every way that its manual allows, and looks at what comes out.

    matrix.py            gcc and clang, every standard, each build option
    matrix.py --quick    one C and one C++ compiler, one standard each

Reports in TAP. The build options are those that sandbox.h's own directives test, so a new one is
compiled here without being named here.
"""

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tap import ROOT, execute, expect, run

HEADER = (ROOT / "sandbox.h").read_text(encoding="utf-8")
DECLARATIONS = HEADER[:HEADER.index("#ifdef SANDBOX_IMPLEMENTATION")]
LONGEST_FUNCTION = 80

WARNINGS = "-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wcast-qual -Werror".split()
# With -std=c99 and without this, the system's headers hide sockets and poll from the transport.
POSIX = "-D_POSIX_C_SOURCE=200809L"
C = ["gcc -std=c99", "clang -std=c99", "gcc -std=c11", "clang -std=c11", "gcc -std=c17",
     "clang -std=c17"]
CPP = ["g++ -std=c++11", "clang++ -std=c++11", "g++ -std=c++17", "clang++ -std=c++17"]

LIBRARY = '#define SANDBOX_IMPLEMENTATION\n#include "sandbox.h"\n'
EVERYTHING = LIBRARY + '#include "transports/sandbox_posix.h"\n'

# All that the library may ask of libc, unless an option forbids that too.
LIBC = set("memchr memcmp memcpy memmove memset strchr strcmp strcspn strlen strncmp strrchr strspn "
           "strstr malloc realloc free getenv".split())
WITHOUT = {"SBX_NO_STDLIB": {"malloc", "realloc", "free"}, "SBX_NO_ENV": {"getenv"}}


class Workshop:
    """A directory for one test, and a compiler."""

    def __init__(self, compiler):
        self.directory = tempfile.TemporaryDirectory()
        self.compiler = compiler.split()

    def compile(self, text, *flags, name="it"):
        """Compiles text, where warnings are errors unless -w is a flag; returns the object file."""
        suffix = ".cc" if "++" in self.compiler[0] else ".c"
        source = Path(self.directory.name, name + suffix)
        source.write_text(text, encoding="utf-8")
        execute(*self.compiler, *WARNINGS, "-I.", *flags, "-c", str(source),
                "-o", str(source.with_suffix(".o")))
        return str(source.with_suffix(".o"))

    def link_and_run(self, *objects):
        program = str(Path(self.directory.name, "program"))
        execute(*self.compiler, "-o", program, *objects, "-pthread")
        execute(program)


def symbols(kind, object_file):
    """The names that nm --KIND-only lists; those with a full stop are the compiler's own."""
    names = (line.split()[-1]
             for line in execute("nm", "-g", f"--{kind}-only", object_file).splitlines())
    return {name for name in names if "." not in name}


def public_functions():
    return re.findall(r"^SBX_API [^;]*?\b(sbx_\w+)\(", DECLARATIONS, re.MULTILINE)


def options():
    """The macros SBX_NO_* that a directive of sandbox.h tests."""
    directives = "".join(re.findall(r"^[ \t]*#[ \t]*(?:el)?if.*\n", HEADER, re.MULTILINE))
    return sorted(set(re.findall(r"\bSBX_NO_[A-Z0-9_]+", directives)))


# ---- tests ----

def compiles(compiler):
    """The library alone needs no feature macro; the transport does under a strict standard."""
    shop = Workshop(compiler)
    # Optimized, because some warnings need the compiler's flow analysis.
    shop.compile(LIBRARY, "-O2")
    shop.compile(EVERYTHING, "-O2", POSIX)


def compiles_with(compiler, *macros):
    Workshop(compiler).compile(EVERYTHING, POSIX, *[f"-D{macro}" for macro in macros])


def all_options_are_documented():
    prose = re.sub(r"^[ \t]*#.*\n", "", DECLARATIONS, flags=re.MULTILINE)
    documented = set(re.findall(r"\bSBX_NO_[A-Z0-9_]+", prose))
    expect(documented == set(options()),
           f"only documented: {sorted(documented - set(options()))}, "
           f"only in the code: {sorted(set(options()) - documented)}")


def included_again(compiler):
    """For its declarations, then for the implementation, then once more."""
    declarations = EVERYTHING.replace("#define SANDBOX_IMPLEMENTATION\n", "")
    again = "#undef SANDBOX_IMPLEMENTATION\n" + EVERYTHING
    Workshop(compiler).compile(declarations + EVERYTHING + again, POSIX)


def two_files(user, owner):
    """One file calls what another implements: every public function is there, with C linkage."""
    names = public_functions()
    expect(len(names) > 20, "the public functions were not found")
    using, owning = Workshop(user), Workshop(owner)
    calls = '#include "sandbox.h"\ntypedef void (*function)(void);\nint main(void)\n{\n' \
        f"    static const function functions[] = {{\n" \
        + "".join(f"        (function){name},\n" for name in names) \
        + "    };\n    return functions[0] == 0 || !sbx_status_is(SBX_E_TLS, SBX_E_CONNECTION);\n}\n"
    linker = using if "++" in user else owning
    linker.link_and_run(using.compile(calls, "-w", name="using"),
                        owning.compile(EVERYTHING, "-w", POSIX, name="owning"))


def exports(compiler):
    """Exactly the public functions, and of the transport nothing without the prefix."""
    shop = Workshop(compiler)
    defined = symbols("defined", shop.compile(LIBRARY, "-w"))
    expected = set(public_functions())
    expect(defined == expected, f"defined, not declared: {sorted(defined - expected)}; "
           f"declared, not defined: {sorted(expected - defined)}")
    foreign = {name for name in symbols("defined", shop.compile(EVERYTHING, "-w", POSIX))
               if not name.startswith("sbx_")}
    expect(not foreign, f"without the prefix sbx_: {sorted(foreign)}")


def exports_nothing(compiler):
    shop = Workshop(compiler)
    defined = symbols("defined", shop.compile(EVERYTHING, "-w", "-DSBX_STATIC", POSIX))
    expect(not defined, f"defined in spite of SBX_STATIC: {sorted(defined)}")


def imports(compiler, option):
    """The library calls a handful of libc's functions, and never the operating system."""
    flags = ["-w", "-fno-stack-protector"]
    if option:
        flags.append(f"-D{option}")
    shop = Workshop(compiler)
    needed = symbols("undefined", shop.compile(LIBRARY, *flags))
    foreign = needed - (LIBC - WITHOUT.get(option, set())) - {"_GLOBAL_OFFSET_TABLE_"}
    expect(not foreign, f"calls {sorted(foreign)}")


def version_is_that_of_the_changelog():
    parts = [re.search(rf"^#define SBX_VERSION_{part} (\d+)$", HEADER, re.MULTILINE)
             for part in ("MAJOR", "MINOR", "PATCH")]
    text = re.search(r'^#define SBX_VERSION "(.*)"$', HEADER, re.MULTILINE)
    newest = re.search(r"^## (\d+\.\d+\.\d+) - ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    expect(all(parts) and text and newest, "a version macro or a heading was not found")
    version = ".".join(part[1] for part in parts)
    expect(version == text[1] == newest[1],
           f"SBX_VERSION_*: {version}, SBX_VERSION: {text[1]}, CHANGELOG.md: {newest[1]}")


def functions_are_short():
    """In this code a function is what stands between { and } at the left margin."""
    long = []
    found = 0
    for path in sorted([*ROOT.glob("src/*.[ch]"), *ROOT.glob("transports/*.h")]):
        lines = path.read_text(encoding="utf-8").splitlines()
        start = None
        for number, line in enumerate(lines, 1):
            if line == "{" or re.match(r"[A-Za-z_].*\)\s*\{$", line):
                start = number
                found += 1
            elif line == "}" and start:
                length = number - start + 1
                if length > LONGEST_FUNCTION:
                    long.append(f"{path.relative_to(ROOT)}:{start}: {length} lines")
                start = None
    expect(found > 20, "the functions were not found")
    expect(not long, f"functions of more than {LONGEST_FUNCTION} lines:\n" + "\n".join(long))


def plan(quick):
    """All tests, as pairs of a name and a function."""
    c, cpp = (C[:1], CPP[:1]) if quick else (C, CPP)
    for compiler in c + cpp:
        yield compiler, lambda it=compiler: compiles(it)
    for compiler in c[:2] + cpp[:2]:
        for option in ["SBX_STATIC", *options()]:
            yield f"{compiler} -D{option}", lambda it=compiler, op=option: compiles_with(it, op)
        yield f"{compiler}, all options at once", lambda it=compiler: compiles_with(it, *options())
        yield f"{compiler}, included again", lambda it=compiler: included_again(it)
        yield f"{compiler}, exported names", lambda it=compiler: exports(it)
        yield f"{compiler} -DSBX_STATIC, exported names", lambda it=compiler: exports_nothing(it)
    for option in ["", *options()]:
        yield f"imported names {option}".strip(), lambda op=option: imports(c[0], op)
    for user, owner in ((c[0], c[0]), (cpp[0], c[0]), (c[0], cpp[0]), (cpp[-1], cpp[-1])):
        yield f"{user} uses, {owner} implements", lambda us=user, ow=owner: two_files(us, ow)
    yield "all options are documented", all_options_are_documented
    yield "version is that of the changelog", version_is_that_of_the_changelog
    yield "functions are short", functions_are_short


def main():
    parser = argparse.ArgumentParser(description="Compiles sandbox.h in every way.")
    parser.add_argument("--quick", action="store_true", help="with one C and one C++ compiler")
    run(list(plan(parser.parse_args().quick)), jobs=os.cpu_count())


if __name__ == "__main__":
    main()
