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


async def stat(case):
    """a file's size is told without its bytes"""
    box = await case.sandbox()
    await done(box.write("/tmp/f", "12345"))
    equal((await done(box.stat("/tmp/f"))).size_bytes, 5, "the size")
    with raises(sdk.ResourceNotFoundError, "/tmp/g", resource_type="file"):
        await done(box.stat("/tmp/g"))


async def no_snapshot(case):
    """a snapshot that does not exist is not found"""
    with raises(sdk.ResourceNotFoundError, "nothing"):
        await case.sandbox(snapshot_name="nothing")


if __name__ == "__main__":
    shared.run([closed_input, run_config, stat, no_snapshot], {}, "ä b/c?d#e%25")
