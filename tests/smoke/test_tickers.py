# SPDX-License-Identifier: MIT
"""Tickers and the start of a reactor (#99): on demand, without drift, contained when they raise.

A reactor's waits have one deadline, the soonest of all clocks, timers and tickers; with none of
them there is no deadline, and io_uring_enter(2) waits for completions alone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

import ioxide
from tests.support import (
    SMALL,
    asleep,
    connect,
    echo,
    new_threads,
    on_reactor,
    open_fds,
    read_exactly,
    serve,
    until,
    wait_fds,
)


def _sleeps(server: ioxide.Server) -> None:
    """Fails unless the reactor makes no system call of its own for half a second: ten ticks."""
    until(lambda: asleep(server), "the reactor asleep")
    enters = server.stats().enters
    threading.Event().wait(0.5)
    assert enters == server.stats().enters, "the reactor woke with nobody to serve"


@pytest.mark.issue(99)
def test_a_ticker_wakes_the_reactor_until_it_is_cancelled() -> None:
    """A ticker added to an idle reactor is called again and again; cancelled, it costs nothing."""
    tickers: list[ioxide.Ticker] = []
    with serve(echo) as server:
        reactor = server.reactors[0]
        _sleeps(server)
        on_reactor(reactor, lambda: tickers.append(reactor.add_ticker(lambda: None, 50)))
        until(lambda: server.stats().timer_ticks >= 3, "three ticks")
        on_reactor(reactor, tickers[0].cancel)
        on_reactor(reactor, tickers[0].cancel)  # again: no harm
        ticks = server.stats().timer_ticks
        _sleeps(server)
        assert ticks == server.stats().timer_ticks
        assert 0 == server.stats().ticker_faults


@pytest.mark.issue(99)
def test_a_ticker_that_raises_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged and counted each time, called again, and the others and the reactor go on."""
    calls: list[str] = []

    def raising() -> None:
        calls.append("raising")
        raise LookupError("on purpose")

    def cancelling() -> None:
        raise asyncio.CancelledError

    def add() -> None:
        reactor.add_ticker(raising, 50)
        reactor.add_ticker(cancelling, 50)
        reactor.add_ticker(lambda: calls.append("other"), 50)

    with caplog.at_level(logging.ERROR), serve(echo) as server, connect(server) as client:
        reactor = server.reactors[0]
        on_reactor(reactor, add)
        until(lambda: calls.count("raising") >= 3, "the ticker that raises is called again")
        until(lambda: calls.count("other") >= 3, "the other ticker is called")
        until(lambda: server.stats().ticker_faults >= 6, "its faults counted")
        client.sendall(b"x")
        assert b"x" == read_exactly(client, 1)
    assert "on purpose" in caplog.text


class FakeLoop:
    """A loop whose time is what the test says."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[float] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, _callback: Callable[[], None]) -> asyncio.TimerHandle:
        self.due.append(when)
        return cast("asyncio.TimerHandle", SimpleNamespace(cancel=lambda: None))


def test_ticks_do_not_drift() -> None:
    """Deadlines stay on the grid of the first, however late a tick is; missed ones are left out."""
    loop = FakeLoop()
    driver = SimpleNamespace(timer_ticks=0, ticker_faults=0)
    ticker = ioxide.Ticker(cast("Any", loop), cast("Any", driver), lambda: None, 250)
    for late in (0.0, 0.125, 0.0625, -0.0001, 0.25, 2.125, 0.0):
        loop.now = loop.due[-1] + late
        ticker._tick()
    steps = [round((due - 100) / 0.25, 6) for due in loop.due]
    assert [1, 2, 3, 4, 5, 7, 16, 17] == steps
    assert 7 == driver.timer_ticks


def test_a_ticker_may_cancel_itself() -> None:
    """Cancelled inside its own callback, it is not called again, and the reactor sleeps."""
    tickers: list[ioxide.Ticker] = []
    with serve(echo) as server:
        reactor = server.reactors[0]

        def once() -> None:
            tickers[0].cancel()

        on_reactor(reactor, lambda: tickers.append(reactor.add_ticker(once, 50)))
        until(lambda: server.stats().timer_ticks >= 1, "the first tick")
        _sleeps(server)
        assert 1 == server.stats().timer_ticks
        assert "cancelled" in repr(tickers[0])


def test_tickers_belong_to_the_reactor_s_thread() -> None:
    """Adding or cancelling one elsewhere raises and names the way: post(), which works."""
    with serve(echo) as server:
        reactor = server.reactors[0]
        with pytest.raises(RuntimeError, match=r"add_ticker.*Reactor\.post"):
            reactor.add_ticker(lambda: None, 50)
        added = threading.Event()

        def tick() -> None:
            added.set()

        reactor.post(reactor.add_ticker, tick, 50)
        until(added.is_set, "a tick")
        tickers: list[ioxide.Ticker] = []
        on_reactor(reactor, lambda: tickers.append(reactor.add_ticker(tick, 50)))
        with pytest.raises(RuntimeError, match=r"Ticker\.cancel.*Reactor\.post"):
            tickers[0].cancel()


@pytest.mark.parametrize("interval", [0, -1, 1.5, True, None])
def test_bad_interval_is_refused_by_name(interval: Any) -> None:
    """An interval that is not a whole number of milliseconds is refused with its value."""
    with serve(echo) as server:
        reactor = server.reactors[0]

        def add() -> None:
            with pytest.raises(ValueError, match=rf"interval_ms={interval!r}"):
                reactor.add_ticker(lambda: None, interval)

        on_reactor(reactor, add)


def test_a_ticker_is_no_coroutine_function() -> None:
    """An async function, which would never run, is refused, as ticker and as on_start."""
    with serve(echo) as server:
        reactor = server.reactors[0]

        def add() -> None:
            with pytest.raises(TypeError, match="plain function"):
                reactor.add_ticker(echo, 50)  # type: ignore[arg-type]

        on_reactor(reactor, add)
    with pytest.raises(TypeError, match="on_start must be a plain function"):
        ioxide.Server(echo, on_start=echo)  # type: ignore[arg-type]


def test_on_start_runs_on_each_reactor_before_it_accepts() -> None:
    """on_start(reactor) is called on its thread, in its running loop, before the first accept."""
    seen: list[tuple[str, bool, bool, int, int]] = []

    def on_start(reactor: ioxide.Reactor) -> None:
        reactor.add_ticker(lambda: None, 50)
        seen.append(
            (
                reactor.name,
                reactor.on_reactor_thread,
                asyncio.get_running_loop() is reactor.loop,
                reactor.stats().listeners_armed_now,
                reactor.stats().accepts,
            )
        )

    config = SMALL.replace(reactors=2)
    with ioxide.Server(echo, config, on_start=on_start) as server, connect(server) as client:
        client.sendall(b"x")
        assert b"x" == read_exactly(client, 1)
        until(lambda: min(r.stats().timer_ticks for r in server.reactors) >= 2, "ticks of both")
    assert [(f"ioxide-reactor-{n}", True, True, 0, 0) for n in range(2)] == seen


def test_an_on_start_that_raises_fails_the_start() -> None:
    """start() raises what on_start raised, and neither descriptor, thread nor port is left."""
    before, threads = open_fds(), threading.enumerate()
    calls = itertools.count()

    def on_start(reactor: ioxide.Reactor) -> None:
        reactor.add_ticker(lambda: None, 50)
        if next(calls) == 1:
            raise LookupError("no database")

    for _ in range(3):
        server = ioxide.Server(echo, SMALL.replace(reactors=3), on_start=on_start)
        with pytest.raises(LookupError, match="no database"):
            server.start()
        assert () == server.reactors
        calls = itertools.count()
    wait_fds(before)
    assert [] == new_threads(threads)
