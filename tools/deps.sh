#!/bin/sh
# Installs what a target needs and the machine lacks, by apt-get:
#
#     tools/deps.sh demo      what `make demo` needs
#     tools/deps.sh check     the above, and what the tests, the fuzz targets and the matrix need
#     tools/deps.sh bench     the above, and the libraries that the benches compare with
#     tools/deps.sh interop   what `make demo` needs, and what installs and runs official clients
#
# It looks for the things themselves, not for packages, so software that came some other way counts,
# and nothing is asked of the network when nothing is missing. Where there is no apt-get it prints
# the names of Debian's packages and fails.
set -u

missing=
# need PACKAGE COMMAND..: the package is missing unless the command succeeds.
need() {
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}
have() { command -v "$1"; }
library() { pkg-config --exists "$1"; }
file() { # of any of these patterns
    for path in "$@"; do
        [ ! -e "$path" ] || return 0
    done
    return 1
}

look() {
    missing=
    need gcc have cc
    need libc6-dev file /usr/include/stdio.h
    need pkg-config have pkg-config
    need libuv1-dev library libuv
    need bubblewrap have bwrap
    # By its path: sandboxes have the system's own, wherever PATH points here.
    need python3 file /usr/bin/python3
    [ "$1" != demo ] || return 0
    if [ "$1" = interop ]; then
        need python3-venv python3 -c 'import ensurepip'
        need nodejs have node
        need npm have npm
        return 0
    fi
    need g++ have g++
    need libcmocka-dev library cmocka
    need valgrind have valgrind
    need procps have pgrep
    need strace have strace
    # For the tests of terminals; vi and top by their paths, since sandboxes have the system's own.
    need tmux have tmux
    need vim-tiny file /usr/bin/vi
    need clang have clang
    # The runtime of the sanitizers and of libFuzzer. Only clang knows its version, so if there is no
    # clang yet, the second look finds this out.
    if have clang >/dev/null; then
        runtime=$(clang -print-resource-dir)/lib
        need "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev" \
            file "$runtime"/*/libclang_rt.fuzzer*.a
    fi
    [ "$1" = bench ] || return 0
    need libwslay-dev file /usr/include/wslay/wslay.h
    need libcjson-dev file /usr/include/cjson/cJSON.h
    need libjansson-dev file /usr/include/jansson.h
}

case "${1-}" in
demo | check | bench | interop) ;;
*)
    echo "usage: tools/deps.sh demo|check|bench|interop" >&2
    exit 2
    ;;
esac

look "$1"
for round in 1 2; do
    [ -n "$missing" ] || exit 0
    if ! have apt-get >/dev/null; then
        echo "There is no apt-get. Please install these, here by their names in Debian:$missing" >&2
        exit 1
    fi
    sudo=
    if [ "$(id -u)" -ne 0 ]; then
        sudo="sudo"
        if ! have sudo >/dev/null; then
            echo "Please install as root: apt-get install$missing" >&2
            exit 1
        fi
    fi
    echo "Installing:$missing"
    [ "$round" -gt 1 ] || $sudo apt-get -qq update || exit 1
    # shellcheck disable=SC2086 # one word per package
    $sudo env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq install --no-install-recommends $missing >/dev/null || exit 1
    look "$1"
done
[ -z "$missing" ] && exit 0
echo "Still missing, although apt-get installed the packages:$missing" >&2
exit 1
