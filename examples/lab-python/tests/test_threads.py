# SPDX-License-Identifier: MIT
from __future__ import annotations

import asyncio
import threading

import lastwords
import pytest


@pytest.mark.needs("PIDFD_THREAD")
async def test_the_end_of_a_thread_is_noticed() -> None:
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    assert thread.native_id is not None
    waiting = asyncio.create_task(lastwords.thread_ended(thread.native_id))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done

    go.set()
    await asyncio.wait_for(waiting, 30)

    thread.join()
