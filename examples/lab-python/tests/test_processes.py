# SPDX-License-Identifier: MIT
from __future__ import annotations

import asyncio
import os
from pathlib import Path

import lastwords
import pytest


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def start(status: int) -> tuple[int, int]:
    """A process that ends when its pipe is closed: its id, and the other end of the pipe."""
    theirs, ours = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        os.read(theirs, 1)
        os._exit(status)
    os.close(theirs)
    return pid, ours


async def test_the_end_of_a_process_is_noticed() -> None:
    pid, pipe = start(7)
    waiting = asyncio.create_task(lastwords.process_ended(pid))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done

    os.close(pipe)
    await asyncio.wait_for(waiting, 30)

    assert 7 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def test_a_wait_can_be_given_up() -> None:
    pid, pipe = start(0)
    before = descriptors()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(lastwords.process_ended(pid), 0.05)

    assert before == descriptors()
    os.close(pipe)
    os.waitpid(pid, 0)


async def test_no_such_process() -> None:
    pid, pipe = start(0)
    os.close(pipe)
    os.waitpid(pid, 0)
    with pytest.raises(ProcessLookupError):
        await lastwords.process_ended(pid)
