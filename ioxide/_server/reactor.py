# SPDX-License-Identifier: MIT
"""A thread that runs a ring's loop and serves connections with a handler."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import inspect
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ioxide._asyncio.loop import Loop
from ioxide._common import record
from ioxide._common.config import ServerConfig
from ioxide._common.counters import Counters
from ioxide._driver.connection import Connection
from ioxide._driver.driver import Driver
from ioxide._server.handlers import Handler, Handlers
from ioxide._server.tickers import Ticker
from ioxide._server.workers import Workers
from ioxide.errors import DeadlockError, StoppedError

logger = logging.getLogger("ioxide")


_JOIN_STEP = 0.2  # seconds


class ReactorThread:
    """A `Reactor` (context.py) without the context that its thread carries."""

    def __init__(
        self,
        handler: Handler,
        config: ServerConfig,
        listeners: Sequence[socket.socket],
        *,
        name: str = "ioxide-reactor",
        on_start: Callable[[Any], object] | None = None,
        on_end: Callable[[Any], object] | None = None,
    ) -> None:
        self._handler = handler
        self._config = config
        self._listeners = listeners
        self._on_start = on_start
        self._on_end = on_end
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._ready = threading.Event()
        self._lock = threading.RLock()  # a signal handler may stop() inside a stop()
        self._driver: Driver | None = None
        self._loop: Loop | None = None
        self._stopping: asyncio.Event | None = None
        self._stop_requested = False
        self._handlers: Handlers | Workers | None = None
        self.fault: BaseException | None = None

    # From any thread

    @property
    def name(self) -> str:
        """The name of its thread."""
        return self._thread.name

    @property
    def thread_ident(self) -> int | None:
        """`threading.get_ident()` of the reactor's thread; None before `start()`."""
        return self._thread.ident

    @property
    def native_id(self) -> int | None:
        """The kernel's thread id, as in /proc/self/task."""
        return self._thread.native_id

    @property
    def on_reactor_thread(self) -> bool:
        """Whether the caller runs on this reactor's thread."""
        # Not by ident: the ident of a thread that has ended is given to the next one.
        return threading.current_thread() is self._thread

    @property
    def loop(self) -> Loop:
        """The reactor's asyncio loop."""
        if self._loop is None:
            raise RuntimeError(f"{self.name} has not been started")
        return self._loop

    @property
    def driver(self) -> Driver:
        """The reactor's driver; but for `Driver.post()` and counters, its thread's alone."""
        if self._driver is None:
            raise RuntimeError(f"{self.name} has not been started")
        return self._driver

    @property
    def stopping(self) -> bool:
        """Whether a stop has begun, or the reactor has ended."""
        return self._stop_requested

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread and wait until it accepts; raises what its set-up raised."""
        self._thread.start()
        self._ready.wait()
        if self.fault is not None:
            self._thread.join()
            raise self.fault

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        """Queue ``callback(*args)`` for the reactor's thread; never runs it inline.

        A callback that raises is logged and counted (`Counters.callback_faults`).  Raises
        `StoppedError` when the reactor is stopped.  With ``ServerConfig.context=False`` it is
        ``loop.call_soon_threadsafe()`` that queues it.
        """
        if self._config.context:
            self.driver.post(callback, *args)
            return
        try:
            self.loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            if not self.loop.is_closed():
                raise
            raise StoppedError(
                f"{self.name} is stopped: {callback!r} was not queued and will not run"
            ) from None

    def stats(self) -> Counters:
        """What this reactor has counted so far."""
        return self.driver.counters()

    def stop(self) -> None:
        """Begin a graceful stop and return; `join()` waits for its end.

        Listeners close first.  Then reading ends on every connection, as if the peer had closed, so
        that a handler parked in ``recv()`` goes on at once; handlers that have not ended after
        `ServerConfig.stop_timeout_ms` are cancelled and have as long again to clean up.  What is
        left then is cancelled once more, and its connections are reset.
        """
        with self._lock:
            self._stop_requested = True
            loop, stopping = self._loop, self._stopping
        if loop is not None and stopping is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just been closed: stopped
                loop.call_soon_threadsafe(stopping.set)

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread to end; False when it has not after `timeout` seconds.

        Raises `DeadlockError`, a `RuntimeError`, on a thread that the reactor waits for itself when
        it ends: its own, its workers', and those that ``asyncio.to_thread()`` and `detached()` run
        on.  `stop()` may be called there.
        """
        thread = threading.current_thread()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if self._waits_for(thread):
                raise DeadlockError(
                    f"{self.name} cannot wait for its own end, which waits for {thread.name}: "
                    "use Reactor.stop(), which does not wait"
                )
            # In steps, because a thread may be here before its executor lists it.
            left = _JOIN_STEP if deadline is None else deadline - time.monotonic()
            self._thread.join(max(0.0, min(left, _JOIN_STEP)))
            if not self._thread.is_alive():
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False

    def _waits_for(self, thread: threading.Thread) -> bool:
        """Whether its end waits for `thread`."""
        if thread is self._thread:
            return True
        if isinstance(self._handlers, Workers) and self._handlers.waits_for(thread):
            return True
        return self._loop is not None and self._loop.waits_for(thread)

    # On the reactor's thread

    def add_ticker(self, callback: Callable[[], object], interval_ms: int) -> Ticker:
        """Call ``callback()`` every `interval_ms` milliseconds, until `Ticker.cancel()` or stop.

        For plain functions that do not take long: they run on the reactor's thread between ticks
        of the ring, while no handler does.  One that raises is logged and counted
        (`Counters.ticker_faults`) and goes on.  A reactor without tickers, connections and timers
        makes no system call.

        Raises `RuntimeError` on another thread (hand the call over with `post()`), and when the
        reactor does not run.
        """
        driver = self.driver
        driver.check_thread("Reactor.add_ticker()")
        if not callable(callback) or inspect.iscoroutinefunction(callback):
            raise TypeError(
                f"a ticker calls a plain function, not {callback!r}: "
                "for a coroutine start an asyncio task that sleeps"
            )
        if not isinstance(interval_ms, int) or isinstance(interval_ms, bool) or interval_ms < 1:
            raise ValueError(f"interval_ms={interval_ms!r}: must be an integer of at least 1")
        if driver.closed:
            raise RuntimeError(f"{self.name} is stopped: {callback!r} will not be called")
        return Ticker(self.loop, driver, callback, interval_ms)

    def _begin(self) -> None:
        """Called first on its thread."""

    def _end(self) -> None:
        """Called last on its thread, before `join()` returns."""

    def _main(self) -> None:
        try:
            self._begin()
            self._run()
        except BaseException as error:
            self.fault = error
            if self._ready.is_set():
                logger.critical("%s ended by %r", self.name, error, exc_info=error)
                record.tell_ended(self.name, "it has ended by an exception")
        finally:
            self._stop_requested = True  # also after a fault: nothing is taken any more
            try:
                self._end()
            finally:
                self._ready.set()
                if self._on_end is not None:
                    self._on_end(self)

    def _run(self) -> None:
        driver = Driver(self._config)
        try:
            loop = Loop(driver, on_connection=self._start_handler)
        except BaseException:
            driver.close()
            raise
        self._driver = driver
        with self._lock:
            self._loop = loop  # before the first accept, which may be in the very first tick
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                try:
                    with loop.watched(self._config.stall_warning_ms):
                        runner.run(self._serve())
                except BaseException as error:
                    self.fault = error  # before the runner runs what is left, _started() too
                    raise
                finally:
                    loop.begin_end()
        finally:
            self._stop_requested = True  # also after a fault: nothing is taken any more
            # The runner has cancelled what was left and closed the loop, and with it the driver.
            loop.close()
            if isinstance(self._handlers, Workers):
                self._handlers.close(self._config.stop_timeout_ms)
            with self._lock:
                self._stopping = None
            for listener in self._listeners:
                listener.close()

    async def _serve(self) -> None:
        stopping = asyncio.Event()
        with self._lock:
            self._stopping = stopping
            if self._stop_requested:
                stopping.set()
        self._handlers = self._open_handlers(stopping)
        if self._on_start is not None:
            self._on_start(self)
        for listener in self._listeners:
            self.driver.listen(
                listener.fileno(), None, functools.partial(self._accept_failed, listener)
            )
        # Called in the tick after the next one, when the accepts have been submitted.
        self.loop.call_soon(self.loop.call_soon, self._started)
        await stopping.wait()
        if isinstance(self._handlers, Workers):
            self._handlers.check()  # or one of them ended by itself
        await self._stop_serving()

    def _started(self) -> None:
        if self.fault is None:
            self._ready.set()

    def _open_handlers(self, stopping: asyncio.Event) -> Handlers | Workers:
        config = self._config
        if not config.continuation_mode.pooled:
            return Handlers(self._handler, self.driver, self.loop, self.name)
        workers = Workers(
            self._handler,
            self.driver,
            self.loop,
            count=config.pool_threads,
            name=self.name,
            stall_warning_ms=config.stall_warning_ms,
            on_fault=stopping.set,
        )
        self._handlers = workers  # first: started workers are ended also when open() fails
        workers.open()
        return workers

    async def _stop_serving(self) -> None:
        driver = self.driver
        while True:
            try:
                driver.unlisten()
                break
            except BlockingIOError:  # the submission queue stays full for now
                await asyncio.sleep(0.001)
        while driver.listeners_armed:
            await asyncio.sleep(0.001)
        for listener in self._listeners:
            listener.close()
        # Connections that were taken in the very last batch have their tasks by now.
        for connection in driver.connections():
            connection._end_reads()
        deadline = self.loop.time() + self._config.stop_timeout_ms / 1000
        if self._handlers is not None:
            await self._handlers.finish(self._config.stop_timeout_ms)
        # What ended handlers have written is still sent, as close() promises.
        while self.loop.time() < deadline and any(c.unsent for c in driver.connections()):
            await asyncio.sleep(0.005)
        self.loop.begin_end()  # handlers that were cancelled may wait for what they have detached
        if isinstance(self._handlers, Handlers):
            await self._handlers.clean_up(self._config.stop_timeout_ms)

    def _accept_failed(self, listener: socket.socket, error: OSError) -> None:
        """Called at most once a second for a listener, however often its accepts fail."""
        host, port = listener.getsockname()[:2]
        logger.error(
            "%s cannot accept connections on %s port %d: %s. Clients wait in the backlog, and the "
            "listener tries again every 100 ms%s.",
            self.name,
            host,
            port,
            error.strerror,
            "; raise the limit with `ulimit -n`" if error.errno == errno.EMFILE else "",
        )

    def _start_handler(self, connection: Connection) -> None:
        if self._stop_requested or self._handlers is None:
            connection.close()
            return
        self._handlers.start(connection)
