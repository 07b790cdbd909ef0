# SPDX-License-Identifier: MIT
"""An asyncio event loop whose wait is a ring's tick.

It is asyncio's own unix loop with another selector: `select()` is `Driver.wait()`, and the batch is
dispatched from `_process_events()`, where no task is current and no context is entered.  Everything
else (timers, transports, subprocesses, signals, executors) is asyncio's.

Plain sockets that other libraries register keep their epoll instance; the ring only polls its
descriptor.  Polling each of them through the ring was tried and is slower than epoll.
"""

from __future__ import annotations

import asyncio
import logging
import selectors
from collections.abc import Callable, Mapping
from typing import Any

from ioxide.connection import Connection
from ioxide.driver import Driver

logger = logging.getLogger("ioxide")


class _RingSelector(selectors.BaseSelector):
    """Registers with epoll, waits on the ring."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.epoll = selectors.EpollSelector()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self.epoll.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self.epoll.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self.epoll.get_map()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._driver.wait(timeout)
        return []  # what epoll has is asked for after the batch, in Loop._process_events()

    def close(self) -> None:
        self.epoll.close()


class Loop(asyncio.SelectorEventLoop):
    """An asyncio loop over `driver`, which it closes with itself; on the driver's thread only."""

    def __init__(
        self, driver: Driver, *, on_connection: Callable[[Connection], object] | None = None
    ) -> None:
        self.driver = driver
        self._ring_selector = _RingSelector(driver)
        super().__init__(self._ring_selector)
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
        self.driver.run_posts()

    def _write_to_self(self) -> None:
        # call_soon_threadsafe() from anywhere: the driver's eventfd, which coalesces; the self-pipe
        # stays for signal.set_wakeup_fd() alone.
        self.driver.wake()

    def close(self) -> None:
        if self.is_closed():
            return
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        # The ring first: it still polls the epoll descriptor that super().close() closes.
        if not self.driver.close():
            logger.error("the kernel did not let go of an operation; its memory stays mapped")
        super().close()


def _refuse(connection: Connection) -> None:
    connection.abort()
