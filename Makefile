# Builds and tests everything that is not sandbox.h itself: users of that only copy it.
#
#   make             build/sandboxd, the local server, and build/sbx, the command-line tool
#   make demo        install what is missing, build, run examples/quickstart.c against sandboxd
#   make check       install what is missing, build and run every test
#   make valgrind    run the tests once more under valgrind
#   make fuzz        run each fuzz target for FUZZ_SECONDS (20)
#   make matrix      compile with every compiler, standard and build option
#   make interop     run the official LangSmith clients against sandboxd; they go below build/
#   make bench       measure
#   make amalgamate  make sandbox.h from src/
#   make deps        only install what is missing
#   make install     into PREFIX (/usr/local), below DESTDIR
#   make clean       remove build/, where all that is built goes
#
# V=1 shows the commands. WERROR=-Werror makes warnings errors.

CFLAGS ?= -O2 -g
CLANG ?= clang
PYTHON ?= python3
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 20

WARNINGS = -Wall -Wextra -Wshadow $(WERROR)
# Strict C99 is for `make matrix`: the programs here are written for POSIX.
COMPILE = $(CC) -std=gnu99 $(WARNINGS) -I. -Itransports $(CFLAGS) -pthread
SANITIZE = -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
# Writes down which headers a target was made from, for the -include at the end.
DEPEND = -MMD -MP -MT $@ -MF $@.d
QUIETLY = --no-print-directory $(if $(V),,-s)

ifndef V
say = @mkdir -p $(@D) && echo "  $(1) $@" &&
else
say = mkdir -p $(@D) &&
endif

# As many jobs at once as there are processors, unless the command line says otherwise.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc)
endif

TESTS = $(wildcard tests/test_*.c)
SCRIPTS = $(wildcard tests/integration/*.sh tests/integration/*.py)
FUZZ = $(patsubst fuzz/fuzz_%.c,%,$(wildcard fuzz/fuzz_*.c))
EXAMPLES = $(patsubst examples/%.c,%,$(wildcard examples/*.c))
SANDBOXD = $(patsubst %.c,%.o,$(wildcard examples/sandboxd/*.c))
SBX = $(patsubst %.c,%.o,$(wildcard examples/sbx/*.c))

# All that check runs, once as it is, and once with the sanitizers, in build/asan.
PLAIN = $(TESTS:tests/%.c=build/plain/%)
ASAN = $(TESTS:tests/%.c=build/asan/%)
# Those with threads.
TSAN = build/tsan/test_cancel build/tsan/test_posix build/tsan/test_threads
REPLAY = $(FUZZ:%=build/replay/%)
PROGRAMS = $(addprefix build/,sandboxd sbx $(EXAMPLES))
ASAN_PROGRAMS = $(addprefix build/asan/,sandboxd sbx $(EXAMPLES))

.PHONY: all check demo deps valgrind fuzz matrix interop bench amalgamate install clean
.DELETE_ON_ERROR:

all: build/sandboxd build/sbx

# ---- programs ----

# Static, because the same file runs inside the sandboxes, whatever their root directory holds. libuv
# knows how to look up users, which a static program cannot and sandboxd does not: without these two
# the linker would warn of it.
build/sandboxd: $(SANDBOXD:%=build/%)
	$(call say,LINK) $(CC) $(CFLAGS) -static -pthread -o $@ \
	    -Wl,--defsym=getpwuid_r=abort -Wl,--defsym=getgrgid_r=abort $^ \
	    $$(pkg-config --static --libs libuv-static)

# As static as the sanitizers allow: it runs inside sandboxes that have the system's directories.
build/asan/sandboxd: $(SANDBOXD:%=build/asan/%)
	$(call say,LINK) $(CC) $(SANITIZE) -static-libasan -static-libubsan -pthread -o $@ $^ \
	    $$(pkg-config --static --libs libuv-static)

build/sbx: $(SBX:%=build/%)
	$(call say,LINK) $(CC) $(CFLAGS) -pthread -o $@ $^

build/asan/sbx: $(SBX:%=build/asan/%)
	$(call say,LINK) $(CC) $(SANITIZE) -pthread -o $@ $^

build/examples/%.o: examples/%.c Makefile
	$(call say,CC  ) $(COMPILE) $(DEPEND) -c -o $@ $<

build/asan/examples/%.o: examples/%.c Makefile
	$(call say,CC  ) $(COMPILE) $(SANITIZE) $(DEPEND) -c -o $@ $<

$(EXAMPLES:%=build/%): build/%: examples/%.c Makefile
	$(call say,CC  ) $(COMPILE) $(DEPEND) -o $@ $<

$(EXAMPLES:%=build/asan/%): build/asan/%: examples/%.c Makefile
	$(call say,CC  ) $(COMPILE) $(SANITIZE) $(DEPEND) -o $@ $<

# ---- tests ----

build/plain/%: tests/%.c Makefile
	$(call say,CC  ) $(COMPILE) $(DEPEND) -o $@ $< $$(pkg-config --cflags --libs cmocka)

build/asan/%: tests/%.c Makefile
	$(call say,CC  ) $(COMPILE) $(SANITIZE) $(DEPEND) -o $@ $< $$(pkg-config --cflags --libs cmocka)

build/tsan/%: tests/%.c Makefile
	$(call say,CC  ) $(COMPILE) -O1 -fsanitize=thread $(DEPEND) -o $@ $< \
	    $$(pkg-config --cflags --libs cmocka)

# A fuzz target with a main that runs it once for every file it is given. The target comes last, for
# the list of headers is that of the last file.
build/replay/%: fuzz/fuzz_%.c fuzz/main.c Makefile
	$(call say,CC  ) $(COMPILE) $(SANITIZE) $(DEPEND) -o $@ fuzz/main.c $<

build/fuzz/%: fuzz/fuzz_%.c Makefile
	$(call say,CC  ) $(CLANG) -std=gnu99 $(WARNINGS) -I. -g $(SANITIZE) -fsanitize=fuzzer \
	    $(DEPEND) -o $@ $<

# The steps of a recipe run one after the other: nothing is built before its tools are there.

check:
	@tools/deps.sh check
	@$(PYTHON) amalgamate.py --check
	@$(MAKE) $(QUIETLY) $(PROGRAMS) $(ASAN_PROGRAMS) $(PLAIN) $(ASAN) $(TSAN) $(REPLAY)
	@$(PYTHON) tests/run.py \
	    --tap $(PLAIN) $(ASAN) $(TSAN) "tests/compile/matrix.py --quick" tests/docs.py tests/tooling.py \
	    --exit $(foreach name,$(FUZZ),"build/replay/$(name) fuzz/corpus/$(name)/") \
	    --serial $(SCRIPTS) $(SCRIPTS:%="env BUILD=build/asan %")

valgrind:
	@tools/deps.sh check
	@$(MAKE) $(QUIETLY) all $(PLAIN)
	@$(PYTHON) tests/run.py --limit 1200 --under "valgrind -q --error-exitcode=99 \
	    --leak-check=full --errors-for-leak-kinds=definite,indirect,possible" --tap $(PLAIN)

# What it finds of interest stays in build/, and what fails too: its output says where.
fuzz:
	@tools/deps.sh check
	@$(MAKE) $(QUIETLY) $(FUZZ:%=build/fuzz/%)
	@mkdir -p $(FUZZ:%=build/fuzz/%-corpus)
	@$(PYTHON) tests/run.py --limit $$(($(FUZZ_SECONDS) + 120)) --exit $(foreach name,$(FUZZ),\
	    "build/fuzz/$(name) -max_total_time=$(FUZZ_SECONDS) -timeout=10 -dict=fuzz/$(name).dict \
	    -artifact_prefix=build/fuzz/$(name)- build/fuzz/$(name)-corpus fuzz/corpus/$(name)")

matrix:
	@tools/deps.sh check
	@$(PYTHON) tests/run.py --limit 3600 --tap tests/compile/matrix.py

# Each client is installed when it runs for the first time.
interop:
	@tools/deps.sh interop
	@$(MAKE) $(QUIETLY) build/sandboxd
	@$(PYTHON) tests/interop/run.py

bench:
	@tools/deps.sh bench
	@$(PYTHON) bench/run.py

# ---- the rest ----

demo:
	@tools/deps.sh demo
	@$(MAKE) $(QUIETLY) build/sandboxd build/quickstart
	@tools/demo.sh

deps:
	@tools/deps.sh check

amalgamate:
	$(PYTHON) amalgamate.py

install: all
	install -d $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/bin
	install -m 644 sandbox.h $(wildcard transports/*.h) $(DESTDIR)$(PREFIX)/include
	install -m 755 build/sandboxd build/sbx $(DESTDIR)$(PREFIX)/bin

clean:
	rm -rf build

-include $(shell find build -path build/interop -prune -o -name '*.d' -print 2>/dev/null)
