# SPDX-License-Identifier: MIT
"""An asyncio event loop whose wait is a ring's tick.

It is asyncio's own unix loop with another selector: `select()` is `Driver.wait()`, and the batch is
dispatched from `_process_events()`, where no task is current and no context is entered.  TCP
streams are connections of the core with an asyncio transport as their face (tcp.py, transports.py).
Everything else (timers, subprocesses, signals, executors, datagrams, Unix sockets, ``sock_recv()``
and its like) is asyncio's.

Plain sockets that other libraries register keep their epoll instance; the ring only polls its
descriptor.  Polling each of them through the ring was tried and is slower than epoll.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import logging
import selectors
import signal
import threading
from asyncio import base_events
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ioxide._asyncio.companion import Companion
from ioxide._asyncio.tcp import TcpLoop
from ioxide._driver.connection import Connection
from ioxide._driver.driver import Driver
from ioxide._driver.futures import works_for
from ioxide._driver.opening import no_descriptor
from ioxide._driver.watchdog import Unwatched, Watchdog, watched
from ioxide._ring import _core
from ioxide.errors import StoppedError

logger = logging.getLogger("ioxide")

_T = TypeVar("_T")

# asyncio's own limits, which are private there, from CPython 3.11 to 3.14.
_MIN_TIMERS: int = base_events._MIN_SCHEDULED_TIMER_HANDLES  # type: ignore[attr-defined]
_MAX_CANCELLED: float = base_events._MIN_CANCELLED_TIMER_HANDLES_FRACTION  # type: ignore[attr-defined]


class _RingSelector(selectors.BaseSelector):
    """Registers with epoll, waits on the ring."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.watchdog: Watchdog | Unwatched = Unwatched()
        self.epoll = selectors.EpollSelector()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self.epoll.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self.epoll.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self.epoll.get_map()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._driver.wait(timeout)
        if self.watchdog.asleep:
            self.watchdog.rouse()
        return []  # what epoll has is asked for after the batch, in Loop._process_events()

    def renew(self) -> None:
        """In a forked child: an epoll instance of its own, which watches the same descriptors.

        The old one is the parent's, too: what is changed there is changed for both.
        """
        parents, self.epoll = self.epoll, selectors.EpollSelector()
        for key in parents.get_map().values():
            with contextlib.suppress(OSError):  # closed since: epoll has forgotten it by itself
                self.epoll.register(key.fd, key.events, key.data)
        parents.close()

    def close(self) -> None:
        self.epoll.close()


class _Batch:
    """A batch that waits in the loop's queue of callbacks, behind those that were ready before it.

    It is called as an `asyncio.Handle` is, by `BaseEventLoop._run_once()`, but enters no context:
    the batch's tasks are to be resumed as they are from `Loop._process_events()`.  A callback that
    schedules itself again for ever comes behind it each time, and does not keep it from running.
    """

    _cancelled = False
    _callback = None  # what debug mode looks at, to tell of a slow one

    def __init__(self, loop: Loop) -> None:
        self._loop: Any = loop
        self._queued = False

    def __repr__(self) -> str:
        return "<what the ring has reported>"

    def queue(self) -> None:
        """Have it called once; it is queued already if an exception left the loop before it."""
        if not self._queued:
            self._queued = True
            self._loop._ready.append(self)

    def _run(self) -> None:
        self._queued = False
        loop, ready = self._loop, self._loop._ready
        timers = len(ready)
        loop._dispatch(loop.driver.resume_batch)
        if loop.get_debug():
            return  # asyncio names the slow ones among them in the next turn
        # What the batch has scheduled runs in the same turn, before timers, as without a queue: a
        # transport that was closed with bytes to send ends before a loop that is stopped meanwhile.
        scheduled = len(ready) - timers
        ready.rotate(-timers)
        for _ in range(scheduled):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()


class Loop(_core.Scheduling, TcpLoop):
    """An asyncio loop over `driver`, which it closes with itself.

    As an asyncio loop it may be made, run and closed on different threads, and a forked child may
    run one that does not run in the parent.  The thread that runs it has the ring: where that was
    another one before, the ring is closed and a new one opened, which is a `RuntimeError` while
    connections or listeners are left on the old one.

    ``create_server()``, ``create_connection()``, ``connect_accepted_socket()`` and what stands on
    them (``asyncio.start_server()``, aiohttp, uvicorn ...) run on the ring when the socket is TCP,
    with TLS or without.  They have neither clocks nor a `ServerConfig.write_limit`, as asyncio has
    none, and do not count for `ServerConfig.max_connections`.
    """

    # asyncio's own, which typeshed does not have
    _debug: bool
    _stopping: bool
    _ready: deque[Any]
    _scheduled: list[Any]
    _timer_cancelled_count: int
    _clock_resolution: float

    def __init__(
        self, driver: Driver, *, on_connection: Callable[[Connection], object] | None = None
    ) -> None:
        self._is_plain = False
        self._many_turns = False
        self._companion: Companion | None = None
        self._ending = False
        self._batch = _Batch(self)
        try:
            self._ring_selector = _RingSelector(driver)
            try:
                super().__init__(driver, self._ring_selector)
            except BaseException:
                self._ring_selector.close()
                raise
        except OSError as error:  # epoll_create1(2), or asyncio's self-pipe
            self._closed = True  # or BaseEventLoop.__del__() closes what was never opened
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            raise OSError(
                error.errno, no_descriptor(error.errno, "an event loop's epoll and self-pipe")
            ) from error
        self._on_connection = on_connection or _refuse
        self._attach()
        driver.end_run()  # nothing of the ring stays with this thread, which may not be the one

    def _attach(self) -> None:
        self.driver.attach(
            loop=self,
            poll_fd=self._ring_selector.epoll.fileno(),
            on_connection=self._on_connection,
            on_fault=self._report,
        )

    def run_forever(self) -> None:
        """As asyncio's, on any thread.

        Raises `RingError` when another thread than before runs it, or a forked child, and the
        kernel refuses the new ring; `RuntimeError` when connections or listeners are left on the
        old one.
        """
        self._check_closed()  # type: ignore[attr-defined]
        self._check_running()  # type: ignore[attr-defined]
        if not self.driver.here:
            self._come_here()
        self._is_plain = (
            type(self)._process_events is _process_events
            and type(self).time is base_events.BaseEventLoop.time
            and self._selector is self._ring_selector  # type: ignore[attr-defined]
        )
        try:
            self.driver.begin_run()
            self._many_turns = True
            super().run_forever()
        finally:
            self._many_turns = False
            self.driver.end_run()

    def _come_here(self) -> None:
        driver = self.driver
        driver.check_movable()
        if driver.forked:
            if self._companion is not None:
                raise RuntimeError(
                    f"{self._companion.thread.name}, which runs this loop's detached work, is a "
                    "thread of the process that this one was forked from: make a new loop here"
                )
            self._leave_to_parent()
        driver.move_here()
        self._attach()

    def _leave_to_parent(self) -> None:
        """In a forked child: use neither the epoll instance nor the self-pipe of the parent."""
        self._ring_selector.renew()
        self._close_self_pipe()  # type: ignore[attr-defined]
        self._make_self_pipe()  # type: ignore[attr-defined]
        if self._signal_handlers and threading.current_thread() is threading.main_thread():  # type: ignore[attr-defined]
            signal.set_wakeup_fd(self._csock.fileno())  # type: ignore[attr-defined]

    def _report(self, message: str, error: BaseException) -> None:
        self.call_exception_handler({"message": message, "exception": error})
        self.driver.tell_record(message)

    def _run_once(self) -> None:
        """As asyncio's, in C; run_forever() has turns follow each other there.

        asyncio's own runs in debug mode, and where somebody has put a selector or a
        `_process_events()` of their own into this loop.
        """
        if self._debug or not self._is_plain or "_process_events" in self.__dict__:
            super()._run_once()  # type: ignore[misc]
            return
        many, self._many_turns = self._many_turns, False  # a nested call is one turn
        own = type(self)._run_once is not _run_once  # calls this for one turn
        try:
            self.driver.run_turns(self, self._ring_selector, self.driver, many and not own)
        finally:
            self._many_turns = many

    def _follow(self, polled: bool, behind: bool) -> None:
        """What a turn has to do in Python after its ticks.

        `polled`: epoll has something.  `behind`: the batch is to be resumed after the callbacks
        that are ready.
        """
        if behind:
            self._batch.queue()
        elif self.driver.posts:
            self.driver.run_posts()
        if polled:
            super()._process_events(self._ring_selector.epoll.select(0))  # type: ignore[misc]

    def _drop_cancelled_timers(self) -> None:
        scheduled = self._scheduled
        if (
            len(scheduled) > _MIN_TIMERS
            and self._timer_cancelled_count / len(scheduled) > _MAX_CANCELLED
        ):
            for handle in scheduled:
                handle._scheduled = not handle._cancelled
            self._scheduled = [handle for handle in scheduled if not handle._cancelled]
            heapq.heapify(self._scheduled)
            self._timer_cancelled_count = 0
            return
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(scheduled)._scheduled = False

    def _queue_due_timers(self) -> None:
        end, scheduled = self.time() + self._clock_resolution, self._scheduled
        while scheduled and scheduled[0]._when < end:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            self._ready.append(handle)

    def _process_events(self, event_list: Any) -> None:  # noqa: ARG002 - the selector's is empty
        """Called by `BaseEventLoop._run_once()` between waiting and running callbacks.

        Callbacks that are ready by now were scheduled before the batch came in, and run before it,
        as they run before what asyncio's own selector reports.
        """
        if self._ready:
            ready = self.driver.take_in()
            self._batch.queue()
        else:
            ready = self._dispatch(self.driver.dispatch)
        if ready:
            super()._process_events(self._ring_selector.epoll.select(0))  # type: ignore[misc]

    def _dispatch(self, resume: Callable[[], _T]) -> _T:
        """Resume the batch's tasks by `resume`, a method of the driver, then run the posts."""
        try:
            ready = resume()
        except BaseException:
            self.driver.wake()  # posts whose wake was in this batch: the next tick must not block
            raise
        if self.driver.posts:
            self.driver.run_posts()
        return ready

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """As asyncio's; counts what was reported, whoever handles it."""
        self.driver.count_reported(context)
        super().call_exception_handler(context)

    def waits_for(self, thread: threading.Thread) -> bool:
        """Whether its end waits for `thread`: its companion, or one of its default executor."""
        return works_for(self, thread) or (
            self._companion is not None and self._companion.thread is thread
        )

    @property
    def reactor_name(self) -> str:
        """The name of the thread it runs on."""
        return self.driver.thread.name

    def companion(self) -> Companion:
        """The thread that `detached()` work runs on, started by the first call."""
        if self._ending:
            raise StoppedError(f"{self.reactor_name} is stopping and detaches nothing any more")
        if self._companion is None:
            self._companion = Companion(self, f"{self.reactor_name}-companion")
        return self._companion

    def begin_end(self) -> None:
        """Cancel detached work; what remains to be done before `close()` is bounded then."""
        if self._ending:
            return
        self._ending = True
        if self._companion is not None:
            self._companion.end()

    def watched(self, limit_ms: int) -> contextlib.AbstractContextManager[None]:
        """Log and count each time that callbacks keep the loop for longer than `limit_ms`.

        0 is never.
        """
        return watched(self._ring_selector, self.driver, limit_ms)

    def _write_to_self(self) -> None:
        # call_soon_threadsafe() from anywhere: the driver's eventfd, which coalesces; the self-pipe
        # stays for signal.set_wakeup_fd() alone.
        self.driver.wake()

    def close(self) -> None:
        if self.is_closed():
            return
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        driver = self.driver
        forked = driver.forked
        self._ending = True
        if self._companion is not None and not forked:
            self._companion.close()
        # The ring first: it still polls the epoll descriptor that super().close() closes.
        if not driver.here:
            driver.abandon()
        elif not driver.close():
            logger.error("the kernel did not let go of an operation; its memory stays mapped")
        if forked:
            self._ring_selector.renew()
        super().close()


# Before anybody can replace them.
_process_events, _run_once = Loop._process_events, Loop._run_once


def _refuse(connection: Connection) -> None:
    connection.abort()
