# SPDX-License-Identifier: MIT
"""Waits in asyncio for the end of processes and threads, whoever started them."""

from __future__ import annotations

import asyncio
import os

from . import _pidfd


async def process_ended(pid: int) -> None:
    """Return when this process has ended. Raises ProcessLookupError if there is none."""
    await _readable(_pidfd.open(pid, 0))


async def thread_ended(tid: int) -> None:
    """Return when this thread has ended; Linux 6.9. Raises OSError on an older kernel (EINVAL),
    and ProcessLookupError if there is no such thread."""
    await _readable(_pidfd.open(tid, _pidfd.THREAD))


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    loop.add_reader(descriptor, lambda: ended.done() or ended.set_result(None))
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
