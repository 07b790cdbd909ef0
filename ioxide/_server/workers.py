# SPDX-License-Identifier: MIT
"""Worker threads for the pool modes: handlers live on their loops instead of the reactor's.

The reactor keeps the connections, the ring, the buffers and the slabs.  It notifies a worker once a
batch that tasks can go on.  What a handler does with its connection is queued for the reactor
(`_ring/worker.c`, `_ring/foreign.c`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import selectors
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ioxide._driver.connection import Connection
from ioxide._driver.futures import works_for
from ioxide._driver.watchdog import Unwatched, Watchdog, watched
from ioxide._ring import _core
from ioxide._server.handlers import Handler, Handlers

if TYPE_CHECKING:
    from ioxide._driver.driver import Driver

logger = logging.getLogger("ioxide")


class _WorkerSelector(selectors.EpollSelector):
    """asyncio's own; the watchdog reads from it whether its thread comes back to wait."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self.thread = threading.current_thread()
        self.enters = 0
        self.tick: int | None = None
        self.watchdog: Watchdog | Unwatched = Unwatched()
        self.count_stall = driver.count_stall
        self.tell_record = driver.tell_record

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.tick = None
        events = super().select(timeout)
        self.enters += 1
        self.tick = self.enters
        if self.watchdog.asleep:
            self.watchdog.rouse()
        return events


class _WorkerLoop(asyncio.SelectorEventLoop):
    """asyncio's own; reported exceptions and stalls are counted by the reactor."""

    def __init__(self, driver: Driver) -> None:
        self._own_selector = _WorkerSelector(driver)
        super().__init__(self._own_selector)
        self._driver = driver

    def watched(self, limit_ms: int) -> contextlib.AbstractContextManager[None]:
        """Log and count each time that callbacks keep the loop for longer than `limit_ms`."""
        return watched(self._own_selector, self._own_selector, limit_ms)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._driver.count_reported(context)
        super().call_exception_handler(context)


class _Worker:
    """One thread and its loop."""

    def __init__(
        self,
        handler: Handler,
        driver: Driver,
        *,
        name: str,
        stall_warning_ms: int,
        on_end: Callable[[], object],
    ) -> None:
        self._handler = handler
        self._driver = driver
        self._stall_warning_ms = stall_warning_ms
        self._on_end = on_end
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Future[int] | None = None
        self._core: _core.Worker | None = None
        self.thread = threading.Thread(target=self._main, name=name, daemon=True)
        self.fault: BaseException | None = None
        self.ended = False

    def open(self) -> None:
        self.thread.start()
        self._ready.wait()
        if self.fault is not None:
            raise self.fault

    def start(self, connection: Connection) -> None:
        """On the reactor: have the handler started for `connection`."""
        if self._core is None or not self._core.start(connection):
            connection.close()

    def waits_for(self, thread: threading.Thread) -> bool:
        """Whether its end waits for `thread`: itself, or one of its loop's default executor."""
        return self.thread is thread or (self._loop is not None and works_for(self._loop, thread))

    def stop(self, timeout_ms: int) -> None:
        """Let handlers end within `timeout_ms`, cancel those that do not, then end the thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # its loop is closed: it has ended
                self._loop.call_soon_threadsafe(self._stop, timeout_ms)

    def _stop(self, timeout_ms: int) -> None:
        if self._stopping is not None and not self._stopping.done():
            self._stopping.set_result(timeout_ms)

    def _main(self) -> None:
        try:
            # The runner cancels the remaining tasks at its end; their last steps need the worker.
            loop = _WorkerLoop(self._driver)
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                with loop.watched(self._stall_warning_ms):
                    runner.run(self._serve())
        except BaseException as error:
            self.fault = error
        finally:
            if self._core is not None:
                self._core.detach()
            self.ended = True
            self._ready.set()
            self._on_end()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = self._loop.create_future()
        handlers = Handlers(self._handler, self._driver, self._loop, self.thread.name)
        self._core = self._driver.new_worker(self._loop, handlers.start)
        self._ready.set()
        timeout_ms = await self._stopping
        await handlers.finish(timeout_ms)
        await handlers.clean_up(timeout_ms)


class Workers:
    """The workers of one reactor; used on the reactor's thread.

    `on_fault` is called there when a worker has ended because a handler raised KeyboardInterrupt or
    SystemExit, which end a reactor, too.
    """

    def __init__(
        self,
        handler: Handler,
        driver: Driver,
        loop: asyncio.AbstractEventLoop,
        *,
        count: int,
        name: str,
        stall_warning_ms: int,
        on_fault: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._on_fault = on_fault
        self._ended = asyncio.Event()
        self._workers = [
            _Worker(
                handler,
                driver,
                name=f"{name}-worker-{index}",
                stall_warning_ms=stall_warning_ms,
                on_end=self._worker_ended,
            )
            for index in range(count)
        ]
        self._turns = itertools.cycle(self._workers)

    def open(self) -> None:
        """Start the threads; raises what one of them raised."""
        for worker in self._workers:
            worker.open()

    def start(self, connection: Connection) -> None:
        """Give `connection` to the worker whose turn it is."""
        next(self._turns).start(connection)

    def waits_for(self, thread: threading.Thread) -> bool:
        """Whether the end of one of them waits for `thread`; from any thread."""
        return any(worker.waits_for(thread) for worker in self._workers)

    async def finish(self, timeout_ms: int) -> None:
        """Let handlers end within `timeout_ms`, cancel those that do not, and end the threads.

        The loop goes on meanwhile: what handlers do at their end may need the reactor.
        """
        await asyncio.sleep(0)  # connections of the last batch are handed over first
        for worker in self._workers:
            worker.stop(timeout_ms)
        while not all(worker.ended for worker in self._workers):
            self._ended.clear()
            await self._ended.wait()
        for worker in self._workers:
            worker.thread.join()  # it has nothing left to do
        self.check()

    def check(self) -> None:
        """Raise what has ended a worker."""
        for worker in self._workers:
            if worker.fault is not None:
                raise worker.fault

    def close(self, timeout_ms: int) -> None:
        """The same as `finish()`, after the reactor's loop and all connections have ended."""
        for worker in self._workers:
            worker.stop(0)
        for worker in self._workers:
            if worker.thread.is_alive():  # it was started and has not ended
                worker.thread.join(timeout_ms / 1000)
            if worker.thread.is_alive():
                logger.error("%s: a handler does not end; its thread stays", worker.thread.name)

    def _worker_ended(self) -> None:
        """The last thing that the worker's thread does."""
        with contextlib.suppress(RuntimeError):  # the reactor's loop is closed: close() joins
            self._loop.call_soon_threadsafe(self._check_ended)

    def _check_ended(self) -> None:
        self._ended.set()
        if any(worker.fault is not None for worker in self._workers):
            self._on_fault()
