# SPDX-License-Identifier: MIT
"""`detached()`: awaits a coroutine that runs on another thread than the reactor."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from ioxide._asyncio.loop import Loop

T = TypeVar("T")


async def detached(coro: Coroutine[Any, Any, T]) -> T:
    """Await `coro`, which runs on the reactor's companion thread.

    For code that need not run on the reactor: internals of a library, or code that blocks or
    computes at times and would delay every connection.  Inside, `ReactorContext.current()` is None,
    contextvars are a copy of the caller's, and using a connection raises a `RuntimeError` that
    names its reactor.  The caller gets the value or the exception.

    Cancelling the await cancels `coro`, and waits until that has ended.  A reactor that stops
    cancels its detached work; if that has not ended after 5 s it is left behind, with a log entry.

    On a loop that is no `ioxide.Loop` `coro` runs there, as a task.

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
