# SPDX-License-Identifier: MIT
"""The future of work that another thread has given to a reactor.

Any thread may block for it, but not the reactor that completes it: that wait would block the very
loop that has to end it.  The same holds for reactors that wait for each other in a circle.  Both
are detected here, before the wait begins.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol, TypeVar

from ioxide.errors import DeadlockError

T = TypeVar("T")

# Which thread is blocked on which future now.  A future names the thread that completes it, so
# these are the edges of a graph; a circle in it would be a deadlock.
_waits: dict[threading.Thread, Future[Any]] = {}
_waits_lock = threading.RLock()  # a signal handler may wait where a wait begins


class Completer(Protocol):
    """What a future is completed by: the driver of a reactor."""

    @property
    def thread(self) -> threading.Thread:
        """The thread that completes it."""

    def callback_fault(self, message: str, error: BaseException) -> None:
        """Count and report a done-callback that raised; from any thread."""

    def count_task_fault(self) -> None:
        """Count an exception that was never retrieved; from any thread."""

    def report(self, message: str, error: BaseException) -> None:
        """Report it."""


def works_for(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> bool:
    """Whether `thread` is of the default executor of `loop`, whose runner joins it at the end."""
    executor = getattr(loop, "_default_executor", None)
    return thread in getattr(executor, "_threads", ())


def _ring_of_waits(thread: threading.Thread, future: Future[Any]) -> list[threading.Thread]:
    """The threads on the way from `thread` back to itself if it waits for `future`; [] if none."""
    path = [thread]
    awaited: Future[Any] | None = future
    # A future that is done blocks nobody: the waiting thread has merely not run since.
    while awaited is not None and not awaited.done():
        path.append(awaited.thread)
        if awaited.thread is thread:
            return path
        awaited = _waits.get(awaited.thread)
    return []


class Future(concurrent.futures.Future[T]):
    """A `concurrent.futures.Future` that is completed on a reactor's thread.

    ``await future`` works on any loop, and cancelling that await cancels the future.  Other threads
    may block in `result()` and `exception()`.  On the thread of a reactor these raise
    `DeadlockError`, a `RuntimeError`, at once if the wait could not end: on the reactor that
    completes the future, and where reactors would wait for each other in a ring.

    A done-callback that raises is logged and counted (`Counters.callback_faults`).
    """

    def __init__(self, driver: Completer) -> None:
        super().__init__()
        self._driver = driver

    @property
    def thread(self) -> threading.Thread:
        """The reactor's thread, which completes this future."""
        return self._driver.thread

    def result(self, timeout: float | None = None) -> T:
        """The value, or the exception raised; blocks at most `timeout` seconds (None: for ever).

        Raises `DeadlockError` on a thread that the value would have to come from, `TimeoutError`
        when the time is up, and `concurrent.futures.CancelledError` when it was cancelled.
        """
        with self._waited_for():
            return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The exception, or None for a value; blocks and raises as `result()` does."""
        with self._waited_for():
            return super().exception(timeout)

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Call ``fn(future)`` once it is done, on the thread that completes or cancels it."""
        super().add_done_callback(functools.partial(self._call_back, fn))

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.wrap_future(self, loop=asyncio.get_running_loop()).__await__()

    def _call_back(
        self,
        fn: Callable[[concurrent.futures.Future[T]], object],
        future: concurrent.futures.Future[T],
    ) -> None:
        try:
            fn(future)
        except Exception as error:
            self._driver.callback_fault(f"done-callback {fn!r} raised", error)

    @contextlib.contextmanager
    def _waited_for(self) -> Iterator[None]:
        if self.done():
            yield
            return
        thread = threading.current_thread()
        with _waits_lock:
            ring = _ring_of_waits(thread, self)
            if ring:
                raise DeadlockError(_explain(ring))
            outer = _waits.get(thread)  # a signal handler may wait inside a wait
            _waits[thread] = self
        try:
            yield
        finally:
            with _waits_lock:
                if outer is None:
                    del _waits[thread]
                else:
                    _waits[thread] = outer


def _explain(ring: list[threading.Thread]) -> str:
    names = [thread.name for thread in ring]
    if len(ring) == 2:
        return (
            f"{names[0]} would wait for itself: the loop that would complete this future is the "
            "one that the wait blocks. Await it: `await future`."
        )
    return (
        f"reactors would wait for each other for ever ({' -> '.join(names)}). Await the future, or "
        "hand the work over with ReactorContext.post()."
    )
