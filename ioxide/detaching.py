# SPDX-License-Identifier: MIT
"""`detached()`: an await whose inside does not run on the reactor."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from ioxide.loop import Loop

T = TypeVar("T")


async def detached(coro: Coroutine[Any, Any, T]) -> T:
    """Await `coro`, but run it off the reactor, on its companion's thread; then come home.

    For code whose steps need not be on the reactor: a library's plumbing, or what blocks or
    computes here and there and would hold up every connection.  Inside, `ReactorContext.current()`
    is None, contextvars are a copy of the caller's, and using a connection raises a `RuntimeError`
    that names its reactor.  The value or the exception comes home to the caller.

    Cancelling the await cancels `coro`, and waits until that has ended.  A reactor that stops
    cancels its detached work; if that has not ended after 5 s it is left behind, with a log entry.

    On a loop that is no reactor's there is nothing to leave: `coro` runs there, as a task.

    Raises `StoppedError` when the reactor's loop is ending.
    """
    if not asyncio.iscoroutine(coro):
        raise TypeError(f"detached() takes a coroutine, not {coro!r}")
    home = asyncio.get_running_loop()
    if not isinstance(home, Loop):
        return await home.create_task(coro)
    try:
        companion = home.companion()
    except BaseException:
        coro.close()
        raise
    return await companion.run(coro)
