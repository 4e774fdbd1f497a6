#!/usr/bin/env python3
"""The newest Python client: sandboxes without templates, standard input that is closed."""

import shared
from shared import done, equal, raises, sdk


async def closed_input(case):
    """standard input is at its end unless it is wanted"""
    box = await case.sandbox()
    ended = await done(box.run("cat; echo over", timeout=5))
    equal(ended.stdout, "over\n", "stdout")
    handle = await done(box.run("cat; echo over", timeout=10, wait=False, close_input=False))
    await done(handle.send_input("line\n"))
    await done(handle.close_input())
    equal((await done(handle.result)).stdout, "line\nover\n", "stdout with input")


async def run_config(case):
    """run_config has the directory and the environment of a command"""
    box = await case.sandbox()
    config = sdk.RunConfig(user="user", work_dir="/tmp", env_vars={"A": "ä b"})
    equal((await done(box.run("echo $A; pwd", run_config=config))).stdout, "ä b\n/tmp\n", "stdout")
    with raises(sdk.SandboxOperationError, "user", operation="command"):
        await done(box.run("true", run_config={"user": "somebody"}))


async def parts(case):
    """a file's size is told without its bytes, and parts of it are read"""
    box = await case.sandbox()
    await done(box.write("/tmp/f", "0123456789"))
    tag = (await done(box.stat("/tmp/f"))).etag
    equal((await done(box.stat("/tmp/f"))).size_bytes, 10, "the size")
    for wanted, (content, start) in (({"start": 2, "end": 4}, (b"234", 2)),
                                     ({"start": 8, "if_range": tag}, (b"89", 8)),
                                     ({"suffix_bytes": 3}, (b"789", 7))):
        chunk = await done(box.read_range("/tmp/f", **wanted))
        equal((chunk.content, chunk.start, chunk.total_bytes, chunk.partial, chunk.etag),
              (content, start, 10, True, tag), f"the part {wanted}")
    equal((await done(box.read_range("/tmp/f", start=0, if_none_match=tag))).unchanged, True,
          "unchanged")
    with raises(sdk.SandboxOperationError, "past the end"):
        await done(box.read_range("/tmp/f", start=10))
    await done(box.write("/tmp/f", "changed"))
    chunk = await done(box.read_range("/tmp/f", start=2, if_range=tag))
    equal((chunk.content, chunk.partial), (b"changed", False), "what has changed")
    for lost in (lambda: box.stat("/tmp/g"), lambda: box.read_range("/tmp/g", start=0)):
        with raises(sdk.ResourceNotFoundError, "/tmp/g", resource_type="file"):
            await done(lost())


async def no_snapshot(case):
    """a snapshot that does not exist is not found"""
    with raises(sdk.ResourceNotFoundError, "nothing"):
        await case.sandbox(snapshot_name="nothing")


if __name__ == "__main__":
    shared.run([closed_input, run_config, parts, no_snapshot], {}, "ä b/c?d#e%25")
