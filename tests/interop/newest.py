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


async def no_snapshot(case):
    """a snapshot that does not exist is not found"""
    with raises(sdk.ResourceNotFoundError, "nothing"):
        await case.sandbox(snapshot_name="nothing")


if __name__ == "__main__":
    shared.run([closed_input, no_snapshot], {}, "ä b/c?d#e%25")
