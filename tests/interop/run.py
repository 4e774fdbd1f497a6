#!/usr/bin/env python3
"""Plays the scenarios of the official LangSmith SDKs against build/sandboxd.

    run.py             all, by tests/run.py
    run.py NAME        one of SDKS below

What an SDK needs is installed below build/interop, once: nothing else of the machine changes. The
scenarios report in TAP. Where the registry is out of reach there is one test, and it is skipped."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from services import KEY, LocalServer  # noqa: E402
from tap import ROOT  # noqa: E402

# The first two rows of each registry are of the protocol's first days. The last is the newest of
# November 2026: to raise it, put another version here; what it cannot do any more, or can do
# besides, then shows in the scenarios.
SDKS = {
    "python-0.7.16": ("pip", "langsmith[sandbox]==0.7.16", "seed.py"),
    "python-0.7.17": ("pip", "langsmith[sandbox]==0.7.17", "seed.py"),
    "python-0.15.0": ("pip", "langsmith[sandbox]==0.15.0", "newest.py"),
    "npm-0.5.10": ("npm", "langsmith@0.5.10", "seed.mjs"),
    "npm-0.12.0": ("npm", "langsmith@0.12.0", "newest.mjs"),
    "go-0.25.4": ("go", "github.com/langchain-ai/langsmith-go@v0.25.4", "newest.go"),
}
# What they need besides.
WEBSOCKETS, WS = "websockets==17.4", "ws@8.23.0"

# What package clients say when there is no way to the registry, or when it refuses to serve.
OUT_OF_REACH = re.compile(
    r"Temporary failure in name resolution|Name or service not known|Network is unreachable|"
    r"Connection refused|Connection reset|connect timeout|Read timed out|i/o timeout|"
    r"No route to host|no such host|EAI_AGAIN|ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|"
    r"proxyconnect|ProxyError|403 Forbidden|407 Proxy", re.IGNORECASE)


GO = (1, 25)  # what the Go client asks for; Debian's may be older


class OutOfReach(Exception):
    pass


def execute(*command, cwd, env=None):
    """Runs a command of an installation, which tells why if it fails."""
    done = subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode == 0:
        return
    problem = OUT_OF_REACH.search(done.stdout)
    if problem:
        raise OutOfReach(f"{Path(command[0]).name} says {problem.group()}")
    raise RuntimeError(f"{' '.join(map(str, command))}: exit status {done.returncode}\n"
                       f"{done.stdout}")


def install_pip(directory, package):
    execute(sys.executable, "-m", "venv", directory, cwd=ROOT)
    execute(directory / "bin/pip", "install", "--quiet", "--disable-pip-version-check",
            "--retries=2", "--timeout=20", package, WEBSOCKETS, cwd=directory)


def install_npm(directory, package):
    (directory / "package.json").write_text('{"private": true}\n')
    execute("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=2",
            "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=2000", package, WS,
            cwd=directory)


def install_go(directory, package):
    env = {**os.environ, "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
    found = shutil.which("go") and subprocess.check_output(["go", "env", "GOVERSION"], text=True)
    version = re.match(r"go(\d+)\.(\d+)", found or "")
    if not version or tuple(map(int, version.groups())) < GO:
        raise OutOfReach(f"it needs Go {GO[0]}.{GO[1]}, here is {(found or 'none').strip()}")
    shutil.copy(HERE / "newest.go", directory / "main.go")
    execute("go", "mod", "init", "interop", cwd=directory, env=env)
    execute("go", "get", package, cwd=directory, env=env)
    execute("go", "build", "-o", "scenarios", ".", cwd=directory, env=env)


def install(name):
    """The directory with the SDK, installed now or before."""
    registry, package, _ = SDKS[name]
    directory = ROOT / "build/interop" / name
    finished = directory / "installed"
    wanted = f"{package} {WEBSOCKETS} {WS}\n"
    if not finished.exists() or finished.read_text() != wanted:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        {"pip": install_pip, "npm": install_npm, "go": install_go}[registry](directory, package)
        finished.write_text(wanted)
    return directory


def fill(server):
    """Makes the one sandbox that the server allows."""
    request = urllib.request.Request(
        f"{server.url}/v2/sandboxes/boxes", json.dumps({"wait_for_ready": True}).encode(),
        {"X-Api-Key": KEY, "Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=30).close()


def play(name, directory):
    """Runs the scenarios; returns their exit status."""
    registry, _, scenarios = SDKS[name]
    command = {"pip": [directory / "bin/python", HERE / scenarios],
               "npm": ["node", directory / scenarios],
               "go": [directory / "scenarios"]}[registry]
    if registry == "npm":  # node looks for modules beside the script
        for script in HERE.glob("*.mjs"):
            shutil.copy(script, directory)
    os.environ["SANDBOXD_API_KEY"] = KEY
    with tempfile.TemporaryDirectory() as image, LocalServer() as server, \
            LocalServer("--max-sandboxes", "1") as full, \
            LocalServer("--image", f"one={image}") as images, LocalServer() as reloading:
        fill(full)
        # Clients of WebSockets heed proxies, even on the way to this machine.
        env = server.environment(INTEROP_FULL=full.url, INTEROP_IMAGES=images.url,
                                 INTEROP_RELOAD=reloading.url,
                                 INTEROP_RELOAD_PID=str(reloading.process.pid),
                                 NO_PROXY="127.0.0.1", no_proxy="127.0.0.1",
                                 PYTHONDONTWRITEBYTECODE="1")
        return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, check=False).returncode


def main():
    if not sys.argv[1:]:
        here = f"{shlex.quote(sys.executable)} {shlex.quote(__file__)}"
        return subprocess.call([sys.executable, HERE.parent / "run.py", "--limit", "600", "--tap",
                                *(f"{here} {name}" for name in SDKS)])
    name, = sys.argv[1:]
    try:
        directory = install(name)
    except OutOfReach as reason:
        print(f"1..1\nok 1 # SKIP {name} cannot be installed: {reason}")
        return 0
    except RuntimeError as reason:
        print(f"1..1\nnot ok 1 - {name} can be installed")
        print(re.sub("^", "# ", str(reason), flags=re.MULTILINE))
        return 1
    return play(name, directory)


if __name__ == "__main__":
    sys.exit(main())
