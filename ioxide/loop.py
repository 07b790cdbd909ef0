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
import logging
import selectors
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ioxide.companion import Companion
from ioxide.connection import Connection
from ioxide.driver import Driver, StoppedError
from ioxide.futures import works_for
from ioxide.modes import ContinuationMode
from ioxide.opening import no_descriptor
from ioxide.tcp import TcpLoop
from ioxide.watchdog import Unwatched, Watchdog, watched

logger = logging.getLogger("ioxide")


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

    def close(self) -> None:
        self.epoll.close()


class Loop(TcpLoop):
    """An asyncio loop over `driver`, which it closes with itself; on the driver's thread only.

    ``create_server()``, ``create_connection()``, ``connect_accepted_socket()`` and what stands on
    them (``asyncio.start_server()``, aiohttp, uvicorn ...) run on the ring when the socket is TCP,
    with TLS or without.  They have neither clocks nor a `ServerConfig.write_limit`, as asyncio has
    none, and do not count for `ServerConfig.max_connections`.
    """

    def __init__(
        self, driver: Driver, *, on_connection: Callable[[Connection], object] | None = None
    ) -> None:
        self._drains_posts = driver.drains_posts or driver.mode is ContinuationMode.POSTED
        self._companion: Companion | None = None
        self._ending = False
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
        driver.attach(
            loop=self,
            poll_fd=self._ring_selector.epoll.fileno(),
            on_connection=on_connection or _refuse,
            on_fault=self._report,
        )

    def _report(self, message: str, error: BaseException) -> None:
        self.call_exception_handler({"message": message, "exception": error})

    def _process_events(self, event_list: Any) -> None:  # noqa: ARG002 - the selector's is empty
        """Called by `BaseEventLoop._run_once()` between waiting and running callbacks."""
        try:
            ready = self.driver.dispatch()
        except BaseException:
            self.driver.wake()  # posts whose wake was in this batch: the next tick must not block
            raise
        if ready:
            super()._process_events(self._ring_selector.epoll.select(0))  # type: ignore[misc]
        if self._drains_posts:
            self.driver.run_posts()

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
            self._companion = Companion(self)
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
        self._ending = True
        if self._companion is not None:
            self._companion.close()
        # The ring first: it still polls the epoll descriptor that super().close() closes.
        if not self.driver.close():
            logger.error("the kernel did not let go of an operation; its memory stays mapped")
        super().close()


def _refuse(connection: Connection) -> None:
    connection.abort()
