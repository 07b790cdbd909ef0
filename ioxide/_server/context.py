# SPDX-License-Identifier: MIT
"""A reactor, the ways onto its thread from elsewhere, and how code finds the one it runs on.

Awaits need none of this: whatever a handler awaits, it goes on on its reactor, because the futures
of asyncio, of HTTP clients and of `asyncio.to_thread()` belong to the loop that runs there.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import InvalidStateError
from typing import Any, ClassVar, Self, TypeVar

from ioxide._asyncio.loop import Loop
from ioxide._common.config import ServerConfig
from ioxide._driver.futures import Future
from ioxide._server.handlers import Handler
from ioxide._server.reactor import ReactorThread
from ioxide.errors import StoppedError

T = TypeVar("T")

_here = threading.local()


class ReactorContext:
    """Belongs to a reactor's thread, from its start to its end.

    Made by the reactor; `current()` finds it there, `Reactor.context` anywhere.  Copying it, also
    deeply, gives the same object: it stands for the thread.
    """

    SEND_TIMEOUT: ClassVar[float] = 30.0
    """Seconds that `send()` waits without a `timeout`; assign another number to change it."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        # Futures that are not done: the reactor's end completes them.  With run(), the coroutine
        # while it has not become a task.
        self._waited_for: dict[Future[Any], Coroutine[Any, Any, Any] | None] = {}

    @staticmethod
    def current() -> ReactorContext | None:
        """The context of the reactor whose thread this is; None on every other thread."""
        return getattr(_here, "context", None)

    @property
    def reactor(self) -> Reactor:
        """The reactor whose thread carries this context."""
        return self._reactor

    @property
    def loop(self) -> Loop:
        """The reactor's asyncio loop."""
        return self._reactor.loop

    def post(self, fn: Callable[..., object], *args: Any) -> None:
        """Queue ``fn(*args)`` for the reactor's thread and return; from any thread.

        It never runs inline, also not on the reactor.  One that raises is logged and counted
        (`Counters.callback_faults`).  Raises `StoppedError` when the reactor is stopped; what is
        still queued when it stops is dropped.
        """
        self._reactor.post(fn, *args)

    def send(self, fn: Callable[..., T], *args: Any, timeout: float | None = None) -> T:
        """Run ``fn(*args)`` on the reactor's thread and return its value; from any thread.

        On the reactor's own thread it is called right here.  Elsewhere the caller blocks, and what
        `fn` raises is raised here with its traceback.

        Raises `StoppedError` when the reactor is stopped or stopping, or stops before `fn` has
        begun; `DeadlockError` at once when reactors would wait for each other; `TimeoutError` after
        `timeout` seconds (None: `SEND_TIMEOUT`).  If `fn` had not begun by then, it never will.  If
        it had, it goes on: its value is dropped, and an exception is logged and counted.
        """
        if self._reactor.on_reactor_thread:
            return fn(*args)
        self._refuse_when_stopping(fn)
        future: _Sent[T] = _Sent(self._reactor.driver)
        limit = self.SEND_TIMEOUT if timeout is None else timeout
        self._waited_for[future] = None
        try:
            self.post(_fulfil, future, fn, args)
            return future.result(limit)
        except TimeoutError:
            if future.give_up():
                raise TimeoutError(self._late(fn, limit, timeout, future)) from None
            return future.result()  # its own TimeoutError, or an answer in the last moment
        except BaseException:  # Ctrl-C, or a wait that could never end
            future.give_up()
            raise
        finally:
            self._waited_for.pop(future, None)

    def run(self, coro: Coroutine[Any, Any, T]) -> Future[T]:
        """Start `coro` as a task on the reactor's loop; from any thread.

        Like `asyncio.run_coroutine_threadsafe()`, but the future can be awaited on any loop, does
        not deadlock its own reactor, and an exception that nobody looks at is logged and counted
        (`Counters.task_faults`).  The task runs in a copy of the caller's contextvars.  Cancelling
        the future cancels the task.

        Raises `StoppedError` when the reactor is stopped or stopping; so does the future when it
        stops before the task has begun.  A task that has begun is cancelled by a stop.
        """
        if not asyncio.iscoroutine(coro):
            raise TypeError(f"run() takes a coroutine, not {coro!r}")
        try:
            self._refuse_when_stopping(coro)
            future: _Running[T] = _Running(self._reactor.driver)
            self._waited_for[future] = coro
            try:
                self.post(self._start, future, coro, contextvars.copy_context())
            except BaseException:
                self._waited_for.pop(future, None)
                future.disown()
                raise
        except BaseException:
            coro.close()
            raise
        return future

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __repr__(self) -> str:
        return f"<ioxide.ReactorContext of {self._reactor.name}>"

    # For the reactor

    def _install(self) -> None:
        """Set it on the reactor's thread, for as long as the thread runs."""
        _here.context = self

    def _end(self) -> None:
        """Complete the futures of what will not run any more; the posts were dropped."""
        while True:
            try:
                future, coro = self._waited_for.popitem()
            except KeyError:  # no check before: other threads remove theirs as well
                return
            if coro is not None:
                coro.close()
            # An exception for each, because raising it adds the waiter's traceback to it.
            error = StoppedError(f"{self._reactor.name} was stopped before it came to this call")
            with contextlib.suppress(InvalidStateError):  # done meanwhile, or cancelled
                future.set_exception(error)

    def _refuse_when_stopping(self, what: object) -> None:
        if self._reactor.stopping:
            raise StoppedError(
                f"{self._reactor.name} is stopping: {what!r} was not queued and will not run"
            )

    def _late(self, fn: object, limit: float, timeout: float | None, future: Future[Any]) -> str:
        source = "ReactorContext.SEND_TIMEOUT" if timeout is None else "timeout"
        end = (
            "it had not begun and will not run"
            if future.cancelled()
            else "it has begun and goes on, its value will be dropped"
        )
        return (
            f"{self._reactor.name} did not finish {fn!r} within {limit:g} s ({source}): {end}. "
            "Something may keep the reactor busy; see ServerConfig.stall_warning_ms."
        )

    def _start(
        self, future: _Running[T], coro: Coroutine[Any, Any, T], context: contextvars.Context
    ) -> None:
        if future.cancelled():
            self._waited_for.pop(future, None)
            coro.close()
            return
        self._waited_for[future] = None
        try:
            task = self.loop.create_task(coro, context=context)
        except BaseException as error:  # a task factory of the user's, that of asyncio does not
            self._waited_for.pop(future, None)
            coro.close()
            if not future.set_running_or_notify_cancel():
                raise
            future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        task.add_done_callback(functools.partial(self._ended, future))
        future.add_done_callback(lambda _: self._cancel(task))

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        if not task.done():  # else it is the task that has ended the future
            with contextlib.suppress(RuntimeError):  # the loop is closed, and the task with it
                self.loop.call_soon_threadsafe(task.cancel)

    def _ended(self, future: _Running[T], task: asyncio.Task[T]) -> None:
        self._waited_for.pop(future, None)
        if task.cancelled():
            future.cancel()
        if not future.set_running_or_notify_cancel():
            return  # cancelled; had the task raised all the same, asyncio reports it
        error = task.exception()
        if error is None:
            future.set_result(task.result())
        else:
            future.set_exception(error)


class Reactor(ReactorThread):
    """One thread, one ring, one asyncio loop, and the connections they serve.

    `start()` returns when the listeners accept, or raises what kept them from it.
    """

    def __init__(
        self,
        handler: Handler,
        config: ServerConfig,
        listeners: Sequence[socket.socket],
        *,
        name: str = "ioxide-reactor",
        on_start: Callable[[Reactor], object] | None = None,
        on_end: Callable[[Reactor], object] | None = None,
    ) -> None:
        super().__init__(handler, config, listeners, name=name, on_start=on_start, on_end=on_end)
        self._context = ReactorContext(self) if config.context else None

    @property
    def context(self) -> ReactorContext | None:
        """What `ReactorContext.current()` is on its thread; None with ``context=False``."""
        return self._context

    def _begin(self) -> None:
        if self._context is not None:
            self._context._install()

    def _end(self) -> None:
        if self._context is not None:
            self._context._end()


class _Sent(Future[T]):
    abandoned = False
    """The sender does not wait any more: nobody gets the outcome."""

    def give_up(self) -> bool:
        """End the wait; False when it is done already."""
        if not self.cancel() and not self.done():
            self.abandoned = True
        return self.cancelled() or not self.done()


class _Running(Future[T]):
    """Reports an exception that was never retrieved, as asyncio does for its own futures."""

    _unseen: BaseException | None = None

    def set_exception(self, exception: BaseException | None) -> None:
        self._unseen = exception
        try:
            super().set_exception(exception)
        except InvalidStateError:  # it was done before, so this exception was not set
            self._unseen = None
            raise

    def disown(self) -> None:
        """Cancel it unreported: the call that made it was refused, so nobody has it."""
        self.cancel()
        self._retrieved()

    def result(self, timeout: float | None = None) -> T:
        try:
            return super().result(timeout)
        finally:
            self._retrieved()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        try:
            return super().exception(timeout)
        finally:
            self._retrieved()

    def _retrieved(self) -> None:
        if self.done():
            self._unseen = None

    def __del__(self) -> None:
        if self._unseen is not None:
            self._driver.count_task_fault()
            self._driver.report("ReactorContext.run(): exception was never retrieved", self._unseen)


def _fulfil(future: _Sent[Any], fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """On the reactor's thread."""
    if not future.set_running_or_notify_cancel():
        return  # its sender did not wait so long
    try:
        future.set_result(fn(*args))
    except BaseException as error:
        future.set_exception(error)
        # As in asyncio, these two leave the loop; others are reported if nobody waits for them.
        if future.abandoned or isinstance(error, KeyboardInterrupt | SystemExit):
            raise
    finally:
        del future  # not kept alive by the traceback that it holds
