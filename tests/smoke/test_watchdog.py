# SPDX-License-Identifier: MIT
"""Tracking issue #104: what blocks a reactor is found by looking from outside."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future as StdlibFuture
from pathlib import Path

import pytest

import ioxide
from ioxide import ContinuationMode
from ioxide._driver.watchdog import WATCHDOG
from tests.support import TIMEOUT, connect, echo, on_reactor, read_exactly, serve, until

pytestmark = pytest.mark.issue(104)


def stalls_in(caplog: pytest.LogCaptureFixture, where: str) -> list[str]:
    """What was logged of stalls with `where` in their stack: a machine under load adds its own."""
    told = [r.getMessage() for r in caplog.records if "has not come back" in r.getMessage()]
    return [text for text in told if where in text]


def hold(release: threading.Event) -> None:
    """Block this thread."""
    assert release.wait(TIMEOUT)


def test_a_blocked_reactor_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that waits for a stdlib future is counted, once, and its stack is logged."""
    future: StdlibFuture[bytes] = StdlibFuture()

    async def blocks_here(conn: ioxide.Connection) -> None:
        await conn.recv()
        conn.write(future.result())

    with caplog.at_level(logging.WARNING), serve(blocks_here, stall_warning_ms=200) as server:
        with connect(server) as client:
            client.sendall(b"x")
            until(lambda: bool(stalls_in(caplog, "in blocks_here")), "the log of the stall")
            # Several limits later it is still the same stall.
            threading.Event().wait(1.0)
            told = stalls_in(caplog, "in blocks_here")
            assert 1 == len(told)
            assert len(stalls_in(caplog, "")) == server.stats().stalls
            future.set_result(b"late")
            assert b"late" == read_exactly(client, 4)
    assert "ioxide-reactor-0 has not come back to its loop for" in told[0]
    assert "stall_warning_ms=200" in told[0]
    assert "conn.write(future.result())" in told[0]


def test_a_forked_child_has_a_watchdog_of_its_own() -> None:
    """A server that a child starts is watched, although the thread that watched stayed behind."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.smoke.forked_server"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=3 * TIMEOUT,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    assert "True" == done.stdout.strip()


def test_each_stall_counts(caplog: pytest.LogCaptureFixture) -> None:
    """A second stall is another one, whatever blocks: a callback of the loop, or a post."""
    with caplog.at_level(logging.WARNING), serve(echo, stall_warning_ms=200) as server:
        reactor = server.reactors[0]
        queues: list[Callable[..., object]] = [reactor.post, reactor.loop.call_soon_threadsafe]
        for number, queue in enumerate(queues, 1):
            # Two that block one tick, one after the other, would be one stall.
            until(lambda: reactor.driver.tick is None, "a reactor that waits")
            release = threading.Event()
            queue(hold, release)
            until(lambda: len(stalls_in(caplog, "in hold")) == number, f"stall {number}")  # noqa: B023
            release.set()
        until(lambda: reactor.driver.tick is None, "a reactor that waits")
        assert len(stalls_in(caplog, "")) == server.stats().stalls
    assert 2 == len(stalls_in(caplog, "in hold"))


@pytest.mark.parametrize("mode", [mode for mode in ContinuationMode if mode.pooled])
def test_a_blocked_worker_is_told_of(
    mode: ContinuationMode, caplog: pytest.LogCaptureFixture
) -> None:
    """In the pool modes a handler that blocks its worker is found by name; the reactor goes on."""
    future: StdlibFuture[bytes] = StdlibFuture()

    async def blocks_here(conn: ioxide.Connection) -> None:
        await conn.recv()
        conn.write(future.result())

    changes = {"continuation_mode": mode, "pool_threads": 1, "stall_warning_ms": 200}
    with caplog.at_level(logging.WARNING), serve(blocks_here, **changes) as server:
        with connect(server) as client:
            client.sendall(b"x")
            until(lambda: bool(stalls_in(caplog, "in blocks_here")), "the log of the stall")
            on_reactor(server.reactors[0], lambda: None)  # which nobody blocks
            assert server.stats().stalls > 0
            future.set_result(b"late")
            assert b"late" == read_exactly(client, 4)
    told = stalls_in(caplog, "in blocks_here")
    assert 1 == len(told)
    assert "ioxide-reactor-0-worker-0 has not come back to its loop for" in told[0]
    assert "conn.write(future.result())" in told[0]


def test_a_worker_rouses_the_watchdog(caplog: pytest.LogCaptureFixture) -> None:
    """A worker that goes on while its reactor sleeps rouses the watchdog itself."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def handler(conn: ioxide.Connection) -> None:
        loops.append(asyncio.get_running_loop())
        await echo(conn)

    mode = ContinuationMode.POOL_COALESCED
    with caplog.at_level(logging.WARNING):
        with serve(handler, continuation_mode=mode, stall_warning_ms=200) as server:
            with connect(server) as client:
                client.sendall(b"x")
                assert b"x" == read_exactly(client, 1)
                until(lambda: WATCHDOG.asleep, "its sleep")
                release = threading.Event()
                loops[0].call_soon_threadsafe(hold, release)
                try:
                    until(lambda: bool(stalls_in(caplog, "in hold")), "a stall of the worker's")
                finally:
                    release.set()


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


@pytest.mark.parametrize("debug", [pytest.param("", id="plain"), pytest.param("1", id="debug")])
def test_it_sleeps_while_nothing_happens(monkeypatch: pytest.MonkeyPatch, debug: str) -> None:
    """With idle reactors the watchdog's thread sleeps, and the next tick rouses it."""
    monkeypatch.setenv("PYTHONASYNCIODEBUG", debug)
    with serve(echo, stall_warning_ms=100) as server, connect(server) as client:
        client.sendall(b"x")
        assert b"x" == read_exactly(client, 1)
        until(lambda: WATCHDOG.asleep, "its sleep")
        enters = server.stats().enters
        threading.Event().wait(0.5)
        assert enters == server.stats().enters
        assert WATCHDOG.asleep
        before = server.stats().stalls
        release = threading.Event()
        server.reactors[0].post(hold, release)
        until(lambda: server.stats().stalls > before, "a stall found after the sleep")
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
