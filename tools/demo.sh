#!/bin/sh
# Runs the quick start: starts a local sandboxd on a free port, has build/quickstart talk to it, and
# ends it again. With LANGSMITH_API_KEY set there is a service to talk to, so no sandboxd is started.
# However this ends, no process and no file is left.
set -eu

build=${BUILD:-build}

if [ -n "${LANGSMITH_API_KEY:-}" ]; then
    exec "$build/quickstart"
fi

dir=$(mktemp -d)
server=
example=
finish() {
    trap '' INT TERM HUP
    for process in $example $server; do
        kill "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    rm -rf "$dir"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

"$build/sandboxd" --port 0 --data "$dir/data" >"$dir/log" &
server=$!

# Its first line is "listening on http://127.0.0.1:PORT".
url=
tries=0
while [ -z "$url" ]; do
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ] || ! kill -0 "$server" 2>/dev/null; then
        echo "demo: sandboxd did not start" >&2
        exit 1
    fi
    sleep 0.1
    url=$(sed -n '1s/^listening on \(http:.*\)$/\1/p' "$dir/log")
done

# In the background, because a shell that waits for a program in the foreground hears no signal.
LANGSMITH_ENDPOINT=$url LANGSMITH_API_KEY=demo "$build/quickstart" &
example=$!
status=0
wait "$example" || status=$?
example=
exit "$status"
