"""What the Python clients of all versions have in common: sandboxes, commands, files, errors.

A scenario is an async function of a Case; its docstring names it. Each is played with the blocking
client and with the asynchronous one: done() and each() hide the difference.

LANGSMITH_ENDPOINT is a sandboxd with an API key. INTEROP_FULL is one with the same key and no room
for another sandbox, INTEROP_IMAGES one with other images than absent:1, INTEROP_RELOAD one that may
be told to reload, INTEROP_RELOAD_PID its process."""

import asyncio
import contextlib
import faulthandler
import functools
import gc
import inspect
import os
import signal
import socket
import sys
import threading
import traceback
import uuid
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import tap  # noqa: E402
from tap import Failure, expect  # noqa: E402

warnings.simplefilter("ignore", FutureWarning)  # the older clients call themselves experimental
from langsmith import sandbox as sdk  # noqa: E402

ENDPOINT = os.environ["LANGSMITH_ENDPOINT"]
FULL = os.environ["INTEROP_FULL"]
RELOADING = os.environ["INTEROP_RELOAD"]
KILLED = 137  # the exit code
SECONDS = 240  # for all scenarios; then the stacks are shown

HAS_LIFECYCLE = "idle_timeout" in inspect.signature(sdk.Sandbox.run).parameters
HAS_PTY = "pty" in inspect.signature(sdk.Sandbox.run).parameters
HAS_CLOSE_INPUT = "close_input" in inspect.signature(sdk.Sandbox.run).parameters


# ---- blocking and asynchronous alike ----

async def done(value):
    return await value if inspect.isawaitable(value) else value


async def each(iterable):
    if hasattr(iterable, "__aiter__"):
        async for item in iterable:
            yield item
    else:
        for item in iterable:
            yield item


class Case:
    """One client, and what it made. origin is what sandboxes are made from, odd_name a name that
    this version can put into a URL."""

    def __init__(self, asynchronous, origin, odd_name):
        self.client_class = sdk.AsyncSandboxClient if asynchronous else sdk.SandboxClient
        self.origin = origin
        self.odd_name = odd_name
        self.stack = contextlib.AsyncExitStack()
        self.client = self.connect()

    def connect(self, **options):
        client = self.client_class(max_retries=0, **options)
        close = getattr(client, "aclose", None) or client.close
        self.stack.push_async_callback(lambda: done(close()))
        return client

    async def sandbox(self, **options):
        """A sandbox that is deleted at the end, if the scenario has not done so."""
        sandbox = await done(self.client.create_sandbox(**self.origin, **options))
        self.stack.push_async_callback(self.delete, sandbox.name)
        return sandbox

    async def delete(self, name):
        with contextlib.suppress(sdk.ResourceNotFoundError):
            await done(self.client.delete_sandbox(name))


def fresh(kind):
    return f"{kind}-{uuid.uuid4().hex[:12]}"


def equal(found, wanted, what):
    expect(found == wanted, f"{what} is {found!r}, not {wanted!r}")


@contextlib.contextmanager
def raises(kind, text="", **attributes):
    """What is inside raises an exception of exactly this class, with the text in its message."""
    try:
        yield
    except Exception as error:
        if type(error) is not kind:
            raise
        expect(text.lower() in str(error).lower(), f"the message is {error}, without {text!r}")
        for name, wanted in attributes.items():
            equal(getattr(error, name), wanted, f"{name} of {error!r}")
    else:
        raise Failure(f"no {kind.__name__}")


def sever(handle):
    """Breaks the connection below the client, as a network does."""
    connection = handle._control._ws
    if hasattr(connection, "transport"):
        connection.transport.abort()
    else:
        connection.socket.shutdown(socket.SHUT_RDWR)


async def leave(handles):
    """Closes the connection of the handle in the list in good order, which the clients do when it
    is forgotten."""
    handles.clear()
    gc.collect()
    await asyncio.sleep(0.2)


async def first_chunk(handle):
    async for chunk in each(handle):
        if chunk.stream == "stdout":
            return chunk
    raise Failure("the command printed nothing")


# ---- sandboxes ----

async def life(case):
    """sandboxes are made, found, listed, renamed and deleted"""
    name, other = fresh("box"), fresh("box")
    made = await case.sandbox(name=name)
    equal((made.name, made.status, made.status_message), (name, "ready", None), "what was made")
    expect(made.id and made.created_at and made.updated_at, f"something is missing: {made}")
    found = await done(case.client.get_sandbox(name))
    equal((found.id, found.dataplane_url), (made.id, made.dataplane_url), "what was found")
    listed = await done(case.client.list_sandboxes())
    expect(made.id in [box.id for box in listed], "it is not in the list")
    renamed = await done(case.client.update_sandbox(name, new_name=other))
    equal((renamed.name, renamed.id), (other, made.id), "what was renamed")
    with raises(sdk.ResourceNotFoundError, name, resource_type="sandbox"):
        await done(case.client.get_sandbox(name))
    await done(case.client.delete_sandbox(other))
    for lost in (case.client.get_sandbox, case.client.get_sandbox_status,
                 case.client.delete_sandbox):
        with raises(sdk.ResourceNotFoundError, other, resource_type="sandbox"):
            await done(lost(other))
    with raises(sdk.ResourceNotFoundError, other, resource_type="sandbox"):
        await done(case.client.update_sandbox(other, new_name=name))


async def not_waiting(case):
    """a sandbox that is not waited for is provisioning at first, then ready"""
    made = await case.sandbox(wait_for_ready=False)
    equal(made.status, "provisioning", "the status at first")
    ready = await done(case.client.wait_for_sandbox(made.name, timeout=20, poll_interval=0.05))
    equal((ready.id, ready.status), (made.id, "ready"), "what came")
    status = await done(case.client.get_sandbox_status(made.name))
    equal((status.status, status.status_message), ("ready", None), "its status")
    equal((await done(ready.run("echo up"))).stdout, "up\n", "what it prints")


async def context(case):
    """the with statement deletes the sandbox"""
    entered = await done(case.client.sandbox(**case.origin))
    if hasattr(entered, "__aenter__"):
        async with entered as box:
            result = await box.run("echo inside")
    else:
        with entered as box:
            result = box.run("echo inside")
    equal(result.stdout, "inside\n", "stdout")
    with raises(sdk.ResourceNotFoundError):
        await done(case.client.get_sandbox(box.name))


async def names(case):
    """names are taken as they are, and each only once"""
    first = await case.sandbox(name=fresh(case.odd_name))
    second = await case.sandbox()
    equal((await done(case.client.get_sandbox(first.name))).id, first.id, "the id")
    with raises(sdk.SandboxClientError, first.name):
        await case.sandbox(name=first.name)
    with raises(sdk.ResourceNameConflictError, first.name, resource_type="sandbox"):
        await done(case.client.update_sandbox(second.name, new_name=first.name))
    await done(case.client.delete_sandbox(first.name))


async def other_path(case):
    """both base paths are served"""
    for path in ("/v2/sandboxes", "/api/v2/sandboxes", "/v2/sandboxes/"):
        client = case.connect(api_endpoint=ENDPOINT + path)
        box = await done(client.create_sandbox(**case.origin))
        equal((await done(box.run("echo here"))).stdout, "here\n", f"stdout below {path}")
        await done(client.delete_sandbox(box.name))


# ---- commands ----

async def result(case):
    """run gives stdout, stderr and the exit code"""
    box = await case.sandbox()
    ended = await done(box.run("echo out; echo err >&2; exit 3"))
    equal((ended.stdout, ended.stderr, ended.exit_code, ended.success), ("out\n", "err\n", 3, False),
          "the result")
    equal((await done(box.run("true"))).success, True, "success")
    equal((await done(box.run("kill -9 $$"))).exit_code, KILLED, "the exit code of a killed shell")


async def settings(case):
    """env, cwd and shell are heeded"""
    box = await case.sandbox()
    ended = await done(box.run("echo \"$A|$B|$PWD|$0\"", env={"A": "x=y z", "B": "ä☃"}, cwd="/tmp",
                               shell="/bin/sh"))
    equal(ended.stdout, "x=y z|ä☃|/tmp|/bin/sh\n", "stdout")
    equal((await done(box.run("echo $0; pwd"))).stdout, "/bin/bash\n/home/user\n", "the default")
    with raises(sdk.SandboxOperationError, "/nowhere", operation="command"):
        await done(box.run("true", cwd="/nowhere"))
    with raises(sdk.SandboxOperationError, "/no/shell", operation="command"):
        await done(box.run("true", shell="/no/shell"))


async def much(case):
    """much output arrives whole"""
    box = await case.sandbox()
    ended = await done(box.run("for i in $(seq 100000); do echo \"ä☃𝄞 $i\"; done"))
    equal(ended.stdout, "".join(f"ä☃𝄞 {i}\n" for i in range(1, 100001)), "the output")


async def time_limit(case):
    """a command that takes too long is a CommandTimeoutError, and 0 is no limit"""
    box = await case.sandbox()
    with raises(sdk.CommandTimeoutError, "timed out", operation="command",
                error_type="CommandTimeout"):
        await done(box.run("sleep 20", timeout=1))
    handle = await done(box.run("sleep 0.3; echo unhurried", timeout=0, wait=False))
    equal((await done(handle.result)).stdout, "unhurried\n", "stdout")


async def callbacks(case):
    """callbacks get the output as it comes"""
    box = await case.sandbox()
    out, err = [], []
    ended = await done(box.run("echo 1; sleep 0.4; echo E >&2; sleep 0.4; echo 2",
                               on_stdout=out.append, on_stderr=err.append))
    equal((out, err), (["1\n", "2\n"], ["E\n"]), "what came")
    equal((ended.stdout, ended.stderr, ended.exit_code), ("1\n2\n", "E\n", 0), "the result")


async def chunks(case):
    """a handle yields chunks with offsets in bytes"""
    box = await case.sandbox()
    handle = await done(box.run("printf aä; sleep 0.4; printf ☃ >&2; printf b; sleep 0.4; "
                                "printf X >&2; printf c; exit 4", wait=False))
    expect(handle.command_id and handle.pid > 0, f"{handle.command_id} {handle.pid}")
    seen = {"stdout": [], "stderr": []}
    async for chunk in each(handle):
        seen[chunk.stream].append((chunk.offset, chunk.data))
    equal(seen, {"stdout": [(0, "aä"), (3, "b"), (4, "c")], "stderr": [(0, "☃"), (3, "X")]},
          "what came")
    ended = await done(handle.result)
    equal((ended.stdout, ended.stderr, ended.exit_code), ("aäbc", "☃X", 4), "the result")
    equal((handle.last_stdout_offset, handle.last_stderr_offset), (5, 4), "the last offsets")


async def standard_input(case):
    """input reaches the command"""
    box = await case.sandbox()
    more = {"close_input": False} if HAS_CLOSE_INPUT else {}
    handle = await done(box.run("echo ready; read -r a; read -r b; echo \"<$a|$b>\"", wait=False,
                                **more))
    equal((await first_chunk(handle)).data, "ready\n", "the first chunk")
    await done(handle.send_input("one ä\nt"))
    await done(handle.send_input("wo\n"))
    equal((await done(handle.result)).stdout, "ready\n<one ä|two>\n", "stdout")


async def kill(case):
    """kill ends the command and all that it started"""
    box = await case.sandbox()
    handle = await done(box.run("sleep 1000 & echo $!; wait", wait=False))
    child = (await first_chunk(handle)).data.strip()
    await done(handle.kill())
    # This client leaves without waiting for the end, so it hears of it only if that is quick.
    with contextlib.suppress(sdk.SandboxClientError):
        equal((await done(handle.result)).exit_code, KILLED, "the exit code at once")
    again = await done(box.reconnect(handle.command_id))
    equal((await done(again.result)).exit_code, KILLED, "the exit code")
    equal((await done(box.run(f"cat /proc/{child}/status"))).success, False, "the child lives")


async def reattach(case):
    """a command is reattached by its id, from any offset, while it runs and when it is over"""
    box = await case.sandbox()
    handles = [await done(box.run("echo e >&2; sleep 0.2; echo ä; sleep 0.5; echo two; exit 3",
                                  wait=False))]
    command_id = handles[0].command_id
    await first_chunk(handles[0])
    await leave(handles)
    running = await done(box.reconnect(command_id, stdout_offset=3, stderr_offset=2))
    ended = await done(running.result)
    equal((ended.stdout, ended.stderr, ended.exit_code), ("two\n", "", 3), "the rest")
    over = await done((await done(box.reconnect(command_id))).result)
    equal((over.stdout, over.stderr, over.exit_code), ("ä\ntwo\n", "e\n", 3), "all")
    same = await done(running.reconnect())
    equal((await done(same.result)).stdout, "", "what is left")
    unknown = await done(box.reconnect("no-such-command"))
    with raises(sdk.SandboxOperationError, "no-such-command", error_type="CommandNotFound",
                operation="reconnect"):
        await done(unknown.result)


async def broken(case):
    """a broken connection is taken up again, without loss"""
    box = await case.sandbox()
    handle = await done(box.run("for i in 1 2 3 4 5 6 7 8; do echo ä$i; sleep 0.2; done; exit 5",
                                wait=False))
    await first_chunk(handle)
    sever(handle)
    ended = await done(handle.result)
    equal((ended.stdout, ended.exit_code), ("".join(f"ä{i}\n" for i in range(1, 9)), 5),
          "the result")


one_reload = threading.Lock()


async def reload(case):
    """a reload of the server is survived, by older clients by reattaching"""
    client = case.connect(api_endpoint=RELOADING + "/v2/sandboxes")
    box = await done(client.create_sandbox(**case.origin))
    everything = "".join(f"ä{i}\n" for i in range(1, 9)), 5
    with one_reload:
        handle = await done(box.run("for i in 1 2 3 4 5 6 7 8; do echo ä$i; sleep 0.2; done; exit 5",
                                    wait=False))
        await first_chunk(handle)
        os.kill(int(os.environ["INTEROP_RELOAD_PID"]), signal.SIGHUP)
        if HAS_CLOSE_INPUT:
            ended = await done(handle.result)
        else:
            with raises(sdk.SandboxOperationError):
                await done(handle.result)
            ended = await done((await done(box.reconnect(handle.command_id))).result)
    equal((ended.stdout, ended.exit_code), everything, "the result")
    await done(client.delete_sandbox(box.name))


async def terminal(case):
    """a command can have a terminal"""
    box = await case.sandbox()
    ended = await done(box.run("test -t 0 && echo yes; echo also >&2", pty=True))
    equal((ended.stdout, ended.stderr), ("yes\r\nalso\r\n", ""), "what came")
    handle = await done(box.run("python3 -q", pty=True, wait=False))
    await first_chunk(handle)
    await done(handle.send_input("print(6 * 7)\nexit(3)\n"))
    ended = await done(handle.result)
    expect("\n42\r\n" in ended.stdout, f"it shows {ended.stdout!r}")
    equal(ended.exit_code, 3, "the exit code")


async def leaving(case):
    """without clients a command lives as long as it was told"""
    box = await case.sandbox()
    ids = {}
    for name, options in {"idle": {"idle_timeout": 1}, "gone": {"kill_on_disconnect": True},
                          "free": {"idle_timeout": -1, "ttl_seconds": -1}}.items():
        handles = [await done(box.run("echo up; sleep 2.5; echo late", wait=False, **options))]
        ids[name] = handles[0].command_id
        await first_chunk(handles[0])
        await leave(handles)
    for name, wanted in {"gone": ("up\n", KILLED), "free": ("up\nlate\n", 0)}.items():
        ended = await done((await done(box.reconnect(ids[name]))).result)
        equal((ended.stdout, ended.exit_code), wanted, name)
    ended = await done((await done(box.reconnect(ids["idle"]))).result)
    equal((ended.stdout, ended.exit_code), ("up\n", KILLED), "idle")


async def remembering(case):
    """a command that is over is remembered as long as it was told"""
    box = await case.sandbox()
    handle = await done(box.run("true", ttl_seconds=1, wait=False))
    await done(handle.result)
    await asyncio.sleep(1.6)
    with raises(sdk.SandboxOperationError, "expired", error_type="SessionExpired"):
        await done((await done(box.reconnect(handle.command_id))).result)


# ---- files ----

async def files(case):
    """files are written and read, text and bytes, wherever they are"""
    box = await case.sandbox()
    binary = bytes(range(256)) * 8192
    for path, content in {"/tmp/a/new/dir/text": "grüße ☃\n", "relative.bin": binary,
                          "/tmp/a b+c&d=ä?#%41.txt": b"odd", "/tmp/empty": b""}.items():
        await done(box.write(path, content))
        wanted = content.encode() if isinstance(content, str) else content
        expect(await done(box.read(path)) == wanted, f"{path} came back otherwise")
    equal((await done(box.run("sha256sum < /home/user/relative.bin"))).stdout,
          (await done(box.run("for i in {0..255}; do printf \"\\x$(printf %x $i)\"; done > /tmp/256;"
                              "for i in {1..8192}; do cat /tmp/256; done | sha256sum"))).stdout,
          "the file as the sandbox sees it")
    await done(box.write("relative.bin", "shorter"))
    equal(await done(box.read("/home/user/relative.bin")), b"shorter", "what was overwritten")


async def file_errors(case):
    """files that cannot be read or written are errors of their kind"""
    box = await case.sandbox()
    with raises(sdk.ResourceNotFoundError, "/tmp/missing", resource_type="file"):
        await done(box.read("/tmp/missing"))
    with raises(sdk.SandboxOperationError, "/tmp", operation="read", error_type="ReadError"):
        await done(box.read("/tmp"))
    with raises(sdk.SandboxOperationError, "/proc/x", operation="write", error_type="WriteError"):
        await done(box.write("/proc/x", "no"))


# ---- errors ----

async def wrong_key(case):
    """a wrong key is an authentication error"""
    client = case.connect(api_key="wrong")
    with raises(sdk.SandboxAuthenticationError):
        await done(client.list_sandboxes())
    with raises(sdk.SandboxAuthenticationError):
        await done(client.create_sandbox(**case.origin))


async def wrong_key_inside(case):
    """a wrong key is refused inside sandboxes, too"""
    good = await case.sandbox()
    box = type(good).from_dict({"name": good.name, "dataplane_url": good.dataplane_url},
                               case.connect(api_key="wrong"))
    for refused in (lambda: box.read("/etc/passwd"), lambda: box.write("/tmp/x", "x")):
        with raises(sdk.SandboxClientError):
            await done(refused())
    with contextlib.suppress(sdk.SandboxClientError):
        await done(box.run("touch /tmp/ran"))
        raise Failure("a command ran")
    equal((await done(good.run("ls /tmp"))).stdout, "", "what is in /tmp")


async def wrong_path(case):
    """a base path that does not exist is an error that says so"""
    client = case.connect(api_endpoint=ENDPOINT + "/v3/sandboxes")
    with raises(sdk.SandboxAPIError, "/v3/sandboxes"):
        await done(client.list_sandboxes())


async def validation(case):
    """bad values are validation errors that name the field"""
    with raises(sdk.ValidationError, field="timeout"):
        await case.sandbox(timeout=-1)
    with raises(sdk.ValidationError, field="name"):
        await case.sandbox(name="line\nbreak")


async def quota(case):
    """one sandbox too many is a quota error"""
    client = case.connect(api_endpoint=FULL + "/v2/sandboxes")
    with raises(sdk.QuotaExceededError, quota_type="sandbox_count"):
        await done(client.create_sandbox(**case.origin))


SCENARIOS = [life, not_waiting, context, names, other_path, result, settings, much, time_limit,
             callbacks, chunks, standard_input, kill, reattach, broken, reload, files, file_errors,
             wrong_key, wrong_key_inside, wrong_path, validation, quota]
if HAS_PTY:
    SCENARIOS += [terminal]
if HAS_LIFECYCLE:
    SCENARIOS += [leaving, remembering]


async def play(scenario, *options):
    case = Case(*options)
    try:
        async with case.stack:
            await scenario(case)
    except Exception as error:
        # Where in the scenario is of interest; where in the client hardly ever.
        here = [frame for frame in traceback.extract_tb(error.__traceback__)
                if Path(frame.filename).parent == Path(__file__).parent][-1]
        raise Failure(f"{type(error).__name__}: {error}\n{here.line}") from error


def run(scenarios, origin, odd_name):
    """Plays all scenarios with both kinds of client, reports in TAP and ends the process."""
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    tests = [(f"{scenario.__doc__}{', asynchronously' if asynchronous else ''}",
              functools.partial(lambda *options: asyncio.run(play(*options)), scenario,
                                asynchronous, origin, odd_name))
             for scenario in [*SCENARIOS, *scenarios] for asynchronous in (False, True)]
    status = 1
    try:
        tap.run(tests, jobs=4)
    except SystemExit as end:
        status = end.code
    sys.stdout.flush()
    # A blocking handle whose connection is not closed yet would keep the interpreter for ever.
    os._exit(status)
