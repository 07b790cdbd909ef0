# SPDX-License-Identifier: MIT
"""Tracking issue #104: nobody hangs on a reactor that stops, whenever the stop comes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import socket
import threading
import time
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import ioxide
from ioxide import ReactorContext, StoppedError, detached
from tests.support import TIMEOUT, connect, echo, new_threads, on_reactor, serve, until

pytestmark = pytest.mark.issue(104)


def context_of(server: ioxide.Server) -> ReactorContext:
    context = server.reactors[0].context
    assert context is not None
    return context


async def nothing() -> None:
    """A coroutine that ends at once."""


def nothing_is_run() -> None:
    """In the place of `Driver.run_posts()`."""


def test_a_stopped_reactor_refuses() -> None:
    """post(), send() and run() of a reactor that has stopped raise StoppedError at once."""
    with serve(echo) as server:
        context = context_of(server)
    with pytest.raises(StoppedError, match=r"ioxide-reactor-0 is stopped: .* will not run"):
        context.post(print)
    with pytest.raises(StoppedError, match=r"ioxide-reactor-0 is stopping: .* will not run"):
        context.send(print)
    with pytest.raises(StoppedError, match=r"ioxide-reactor-0 is stopping: .* will not run"):
        context.run(nothing())


def test_a_stopping_reactor_refuses() -> None:
    """Once a stop has begun send() and run() raise, although the reactor still serves."""
    parked = threading.Event()

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv()  # ends with the stop
        parked.set()
        await asyncio.to_thread(let_go.wait, TIMEOUT)

    let_go = threading.Event()
    with serve(handler, stop_timeout_ms=60_000) as server, connect(server):
        context = context_of(server)
        until(lambda: server.stats().connections_now == 1, "the connection")
        on_reactor(server.reactors[0], lambda: None)
        server.reactors[0].stop()
        assert parked.wait(TIMEOUT)
        with pytest.raises(StoppedError):
            context.send(print)
        with pytest.raises(StoppedError):
            context.run(nothing())
        on_reactor(server.reactors[0], lambda: None)  # while posts are still run
        let_go.set()


@pytest.mark.parametrize("how", ["send", "run"])
def test_who_waits_is_told_of_the_stop(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """A call that was still queued when the reactor stopped raises where it is waited for."""
    raised: list[BaseException] = []

    with serve(echo) as server:
        reactor, context = server.reactors[0], context_of(server)

        def wait() -> None:
            try:
                if how == "send":
                    context.send(print, timeout=10 * TIMEOUT)
                else:
                    context.run(nothing()).result(10 * TIMEOUT)
            except BaseException as error:
                raised.append(error)

        # As if the call came after the last tick's drain: from here on nobody looks at the queue.
        monkeypatch.setattr(reactor.driver, "run_posts", nothing_is_run)
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        until(lambda: len(reactor.driver.posts) > 0, "the queued call")
        server.stop()
        thread.join(TIMEOUT)
        assert not thread.is_alive(), "the waiting thread was left hanging"
    assert [StoppedError] == [type(error) for error in raised]
    assert "was stopped before it came to this call" in str(raised[0])


class _TakenMeanwhile(dict[Any, Any]):
    """The last entry is taken out by another thread while popitem() is on its way to it."""

    def popitem(self) -> tuple[Any, Any]:
        self.clear()
        return super().popitem()


def test_who_gives_up_while_the_reactor_ends_does_it_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A sender that stops waiting in that very moment: the reactor's thread raises nothing."""
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: raised.append(args.exc_value))
    with serve(echo) as server:
        context = context_of(server)
        future: ioxide.Future[None] = ioxide.Future(server.reactors[0].driver)
        context._waited_for = _TakenMeanwhile({future: None})
    assert [] == raised
    assert server.wait(0)


def test_a_cancelled_call_is_not_missed_by_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A future of run() that was cancelled, and whose turn never came, is nobody's lost error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # what other tests left is not this one's
    with serve(echo) as server:
        reactor, context = server.reactors[0], context_of(server)
        # From here on nobody looks at the queue.
        monkeypatch.setattr(reactor.driver, "run_posts", nothing_is_run)
        assert context.run(nothing()).cancel()
        server.stop()
        gc.collect()
        assert 0 == server.stats().task_faults


def test_who_is_refused_and_told_at_once_misses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """run() that is refused in the moment in which the reactor tells of its end raises, no more."""
    with serve(echo) as server:
        context = context_of(server)

        def refuse(*_: object) -> None:
            context._end()  # on the reactor's thread, in that moment
            raise StoppedError("refused")

        with monkeypatch.context() as patch:
            patch.setattr(context, "post", refuse)
            with pytest.raises(StoppedError, match="refused"):
                context.run(nothing())
        gc.collect()
        assert 0 == server.stats().task_faults


async def _sleep(_: ioxide.Connection) -> None:
    await asyncio.sleep(TIMEOUT)


async def _event(_: ioxide.Connection) -> None:
    await asyncio.Event().wait()


async def _future(_: ioxide.Connection) -> None:
    await asyncio.wrap_future(concurrent.futures.Future())


async def _task(_: ioxide.Connection) -> None:
    await asyncio.create_task(asyncio.sleep(TIMEOUT))


async def _detached(_: ioxide.Connection) -> None:
    await detached(asyncio.sleep(TIMEOUT))


async def _flush(conn: ioxide.Connection) -> None:
    conn.write(b"z" * (8 << 20))
    await conn.flush()


@pytest.mark.parametrize(
    "awaits",
    [_sleep, _event, _future, _task, _detached, _flush],
    ids=["sleep", "event", "future", "task", "detached", "flush"],
)
def test_an_await_on_a_stopping_reactor_is_cancelled(
    awaits: Callable[[ioxide.Connection], Awaitable[None]],
) -> None:
    """What a handler still awaits when its time is up is cancelled, on the reactor's thread."""
    begun = threading.Event()
    ended: list[tuple[type[BaseException], int]] = []

    async def handler(conn: ioxide.Connection) -> None:
        begun.set()
        try:
            await awaits(conn)
        except BaseException as error:
            ended.append((type(error), threading.get_ident()))
            raise

    with serve(handler, stop_timeout_ms=10) as server, connect(server, rcvbuf=4096):
        assert begun.wait(TIMEOUT)
        server.stop()  # while the client is still there
    assert [(asyncio.CancelledError, server.reactors[0].thread_ident)] == ended


@pytest.mark.parametrize("rounds", [12, pytest.param(300, marks=pytest.mark.slow)])
def test_raced_stop(rounds: int) -> None:
    """However a stop falls among posts, sends, tasks, detached work and new connections, all end.

    Each call of another thread either succeeds or raises StoppedError; in the end no thread is
    left, and both outcomes have been seen.
    """
    outcomes: Counter[str] = Counter()
    threads = threading.enumerate()

    async def handler(conn: ioxide.Connection) -> None:
        while data := await conn.recv():
            await detached(asyncio.sleep(0))
            conn.write(data)
            await conn.flush()

    for number in range(rounds):
        server = ioxide.Server(handler, _config())
        server.start()
        context = context_of(server)
        go = threading.Barrier(5)
        over = threading.Event()

        def call(name: str, act: Callable[[], object], go: threading.Barrier) -> None:
            go.wait(TIMEOUT)
            # Until it is refused: the one that only visits, until it is told.
            while not (name == "visit" and over.is_set()):  # noqa: B023 - joined in this round
                try:
                    act()
                    outcomes[f"{name} done"] += 1
                except StoppedError:
                    outcomes[f"{name} refused"] += 1
                    return
                except concurrent.futures.CancelledError:
                    outcomes[f"{name} cancelled"] += 1

        def visit(port: int = server.port) -> None:
            try:
                with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
                    client.sendall(b"x")
                    client.recv(1)
            except OSError:
                over.wait(0.001)  # noqa: B023 - refused or reset: the server is gone

        async def leave() -> None:
            await detached(asyncio.sleep(0))

        acts: dict[str, Callable[[], object]] = {
            "post": lambda: context.post(int),  # noqa: B023
            "send": lambda: context.send(int, timeout=TIMEOUT),  # noqa: B023
            "run": lambda: context.run(leave()).result(TIMEOUT),  # noqa: B023
            "visit": visit,
        }
        callers = [
            threading.Thread(target=call, args=(name, act, go)) for name, act in acts.items()
        ]
        for caller in callers:
            caller.start()
        go.wait(TIMEOUT)
        if number:
            threading.Event().wait(0.002 * (number % 6))
        else:
            until(lambda: all(outcomes[f"{name} done"] for name in acts), "one of each")  # noqa: B023
        server.stop()
        over.set()
        for caller in callers:
            caller.join(TIMEOUT)
            assert not caller.is_alive(), f"{caller} hangs; {outcomes}"
        stats = server.stats()
        assert (0, 0, 0) == (stats.callback_faults, stats.task_faults, stats.handler_faults)
        assert stats.accepts == stats.closes
    until(lambda: not new_threads(threads), "the end of every thread")
    assert [rounds] * 3 == [outcomes[f"{name} refused"] for name in ("post", "send", "run")]


def _config() -> ioxide.ServerConfig:
    from tests.support import SMALL

    return SMALL.replace(stop_timeout_ms=100)


@pytest.mark.parametrize("want", [200, pytest.param(20_000, marks=pytest.mark.slow)])
def test_posts_race_the_drain(want: int) -> None:
    """A post on either side of the drain that runs it is never lost; both sides have been seen.

    No timer runs, so a post whose wake is lost stays in the queue.  Each callback lets the posting
    thread run in the middle of the drain, which every other time posts right there.
    """
    with serve(echo, stall_warning_ms=0) as server:
        context = context_of(server)
        driver = server.reactors[0].driver
        ran = threading.Semaphore(0)
        sides: Counter[str] = Counter()
        posted = 0

        def callback() -> None:
            ran.release()
            time.sleep(0)  # gives the GIL away, and the drain is not over

        while min(sides["asleep"], sides["awake"]) < want and posted < 50 * want:
            sides["asleep" if driver.tick is None else "awake"] += 1
            context.post(callback)
            posted += 1
            assert ran.acquire(timeout=TIMEOUT), f"post {posted} was lost: {sides}"
            if posted % 2:
                until(lambda: driver.tick is None, "a reactor that waits")
        assert posted == server.stats().posts
        assert sides["asleep"] >= want, sides
        assert sides["awake"] >= want, sides
