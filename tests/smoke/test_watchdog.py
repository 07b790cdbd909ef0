# SPDX-License-Identifier: MIT
"""Tracking issue #104: what blocks a reactor is found by looking from outside."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future as StdlibFuture

import pytest

import ioxide
from ioxide.watchdog import WATCHDOG
from tests.support import TIMEOUT, connect, echo, read_exactly, serve, until

pytestmark = pytest.mark.issue(104)


def stalls_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "has not come back" in r.getMessage()]


def test_a_blocked_reactor_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that waits for a stdlib future is counted, once, and its stack is logged."""
    future: StdlibFuture[bytes] = StdlibFuture()

    async def blocks_here(conn: ioxide.Connection) -> None:
        await conn.recv()
        conn.write(future.result())

    with caplog.at_level(logging.WARNING), serve(blocks_here, stall_warning_ms=200) as server:
        with connect(server) as client:
            client.sendall(b"x")
            until(lambda: server.stats().stalls == 1, "the count of the stall")
            # Several limits later it is still the same stall.
            threading.Event().wait(1.0)
            assert 1 == server.stats().stalls
            future.set_result(b"late")
            assert b"late" == read_exactly(client, 4)
    told = [text for text in stalls_in(caplog) if "stall_warning_ms=200" in text]
    assert 1 == len(told)
    assert "ioxide-reactor-0 has not come back to its loop for" in told[0]
    assert "in blocks_here" in told[0]
    assert "conn.write(future.result())" in told[0]


def test_each_stall_counts(caplog: pytest.LogCaptureFixture) -> None:
    """A second stall is another one, whatever blocks: a callback of the loop, or a post."""
    with caplog.at_level(logging.WARNING), serve(echo, stall_warning_ms=200) as server:
        reactor = server.reactors[0]
        queues: list[Callable[..., object]] = [reactor.post, reactor.loop.call_soon_threadsafe]
        for number, queue in enumerate(queues):
            # Two that block one tick, one after the other, would be one stall.
            until(lambda: reactor.driver.tick is None, "a reactor that waits")
            assert number == server.stats().stalls
            release = threading.Event()
            queue(functools.partial(release.wait, TIMEOUT))
            until(lambda: server.stats().stalls > number, f"stall {number}")  # noqa: B023
            release.set()
    assert 2 == len(stalls_in(caplog))


def test_a_reactor_that_waits_is_not_stalled() -> None:
    """Waiting is no stall: neither idle, nor in awaits, nor in many short callbacks."""

    async def handler(conn: ioxide.Connection) -> None:
        while data := await conn.recv():
            await asyncio.sleep(0.5)
            conn.write(data)

    with serve(handler, stall_warning_ms=10_000) as server, connect(server) as client:
        client.sendall(b"x")
        assert b"x" == read_exactly(client, 1)
        assert 0 == server.stats().stalls


def test_it_sleeps_while_nothing_happens() -> None:
    """With idle reactors the watchdog's thread sleeps, and the next tick rouses it."""
    with serve(echo, stall_warning_ms=100) as server, connect(server) as client:
        client.sendall(b"x")
        assert b"x" == read_exactly(client, 1)
        until(lambda: WATCHDOG.asleep, "its sleep")
        enters = server.stats().enters
        threading.Event().wait(0.5)
        assert enters == server.stats().enters
        assert WATCHDOG.asleep
        release = threading.Event()
        server.reactors[0].post(release.wait, TIMEOUT)
        until(lambda: server.stats().stalls == 1, "a stall found after the sleep")
        release.set()


def test_it_ends_with_the_last_reactor() -> None:
    """One thread serves all reactors, and is gone with the last of them; 0 starts none."""

    def watchdogs() -> int:
        return sum(thread.name == "ioxide-watchdog" for thread in threading.enumerate())

    with serve(echo, stall_warning_ms=0):
        assert 0 == watchdogs()
        with serve(echo, reactors=2), serve(echo):
            assert 1 == watchdogs()
        assert 0 == watchdogs()


def test_a_limit_of_zero_is_never() -> None:
    """With stall_warning_ms=0 nothing is counted."""
    with serve(echo, stall_warning_ms=0) as server:
        release, done = threading.Event(), threading.Event()
        server.reactors[0].post(release.wait, TIMEOUT)
        server.reactors[0].post(done.set)
        assert not done.wait(0.5)
        release.set()
        assert done.wait(TIMEOUT)
        assert 0 == server.stats().stalls
