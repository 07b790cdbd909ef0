# SPDX-License-Identifier: MIT
"""The thread that detached work runs on.

Each loop that needs one has a companion: a thread with an ordinary asyncio loop, started by the
first `detached()` (detaching.py) and ended with the reactor's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

logger = logging.getLogger("ioxide")

T = TypeVar("T")

GRACE = 5.0
"""Seconds that detached work has to end after a stopping reactor has cancelled it."""


class _Work(Generic[T]):
    """One `detached()`; `begin` and `cancel` run on the companion's thread, all else at home."""

    def __init__(self, home: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T]) -> None:
        self._home = home
        self._coro = coro
        self._context = contextvars.copy_context()
        self.ended: asyncio.Future[None] = home.create_future()
        self.task: asyncio.Task[T] | None = None
        self.cancels_delivered = 0

    def begin(self) -> None:
        self.task = asyncio.get_running_loop().create_task(self._coro, context=self._context)
        self.task.add_done_callback(lambda _: self._tell_home())

    def cancel(self) -> None:
        assert self.task is not None  # begin() was queued before
        if self.task.cancel():
            self.cancels_delivered += 1

    def _tell_home(self) -> None:
        with contextlib.suppress(RuntimeError):  # home is closed: nobody waits any more
            self._home.call_soon_threadsafe(self.end)

    def end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class Companion:
    """A thread with an asyncio loop, which runs the detached work of the loop `home`."""

    def __init__(self, home: asyncio.AbstractEventLoop, name: str) -> None:
        self._home = home
        # Not the policy's loop: that may be one of ours, which would need a ring.
        self._loop = asyncio.SelectorEventLoop()
        self._works: set[_Work[Any]] = set()
        self._abandoned = False
        self._stopping = asyncio.Event()
        self.thread = threading.Thread(target=self._main, name=name, daemon=True)
        try:
            self.thread.start()
        except BaseException:
            self._loop.close()
            raise

    # At home

    async def run(self, coro: Coroutine[Any, Any, T]) -> T:
        work = _Work(self._home, coro)
        self._works.add(work)
        self._loop.call_soon_threadsafe(work.begin)
        cancelled: asyncio.CancelledError | None = None
        cancels = 0
        try:
            while not work.ended.done():
                try:
                    await asyncio.wait([work.ended])
                except asyncio.CancelledError as error:
                    if work.ended.done():
                        raise  # the coroutine had ended before; this is for the caller alone
                    cancelled = error
                    cancels += 1
                    # RuntimeError: the companion's loop is closed, so the work has ended, too.
                    with contextlib.suppress(RuntimeError):
                        self._loop.call_soon_threadsafe(work.cancel)
        finally:
            self._works.discard(work)
        if work.task is None or not work.task.done():
            raise cancelled or asyncio.CancelledError(f"{self.thread.name} was left behind")
        # A cancellation after the coroutine's end did not reach it, and must not be lost.
        if cancelled is not None and (work.cancels_delivered < cancels or work.task.cancelled()):
            raise cancelled
        return work.task.result()

    def end(self) -> None:
        """Cancel everything, and give up after `GRACE` on what does not end."""
        self._stop()
        self._home.call_later(GRACE, self._abandon)

    def _stop(self) -> None:
        with contextlib.suppress(RuntimeError):  # its loop is closed: it was told before
            self._loop.call_soon_threadsafe(self._stopping.set)

    def _abandon(self) -> None:
        self._abandoned = True
        for work in self._works:
            work.end()

    def close(self) -> None:
        """End the thread and wait for it, when home does not run any more."""
        self._stop()  # a program's loop, as run() makes it, has no end() before this
        self.thread.join(0 if self._abandoned else GRACE)
        if self.thread.is_alive():
            logger.error(
                "%s: detached work does not end %g s after it was cancelled; its thread is left "
                "behind",
                self.thread.name,
                GRACE,
            )

    # On the companion's thread

    def _main(self) -> None:
        # The runner cancels what is left and ends generators and executor.
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            while not self._stopping.is_set():
                # These two have ended a task here; they are raised where it is awaited, at home.
                with contextlib.suppress(KeyboardInterrupt, SystemExit):
                    runner.run(self._live())

    async def _live(self) -> None:
        await self._stopping.wait()
