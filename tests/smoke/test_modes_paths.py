# SPDX-License-Identifier: MIT
"""Each continuation mode takes a path of its own; counters, threads and wakes tell which."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest

import ioxide
from ioxide import ContinuationMode
from tests.smoke.modes import MODES, POOLS, balanced, exchange
from tests.support import (
    TIMEOUT,
    connect,
    echo,
    on_reactor,
    read_exactly,
    read_to_end,
    serve,
    until,
)

pytestmark = pytest.mark.issue(104)


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_takes_its_own_path(mode: ContinuationMode) -> None:
    """The counters tell the modes apart: posts, hand-overs, foreign calls, and none of them."""
    threads: set[str] = set()

    async def handler(conn: ioxide.Connection) -> None:
        threads.add(threading.current_thread().name)
        while data := await conn.recv():
            threads.add(threading.current_thread().name)
            conn.write(data)
            await conn.flush()
            threads.add(threading.current_thread().name)

    with serve(handler, continuation_mode=mode, pool_threads=2) as server:
        exchange(server, connections=8, rounds=50)
        stats = balanced(server)
        assert 8 * 50 * 10 == stats.bytes_sent
        assert stats.wakeups >= 8 * 50

        on_reactors_own = {server.reactors[0].name}
        if not mode.pooled:
            assert on_reactors_own == threads
            assert 0 == stats.handoffs == stats.foreign_writes == stats.wake_writes
            assert (stats.wakeups if mode is ContinuationMode.POSTED else 0) == stats.posts
            return
        assert {f"{server.reactors[0].name}-worker-{n}" for n in range(2)} == threads
        assert 0 == stats.posts
        assert 400 == stats.foreign_writes == stats.foreign_returns
        assert 8 <= stats.handoffs <= stats.wakeups + 8
        if mode is ContinuationMode.POOL:
            # Each write, return and close a wake of its own.
            assert stats.wake_writes >= 400 + 400 + 8


def test_inline_makes_no_handle(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the default mode a request goes through none of asyncio's queues, and no post."""
    scheduled: list[object] = []

    with serve(echo) as server, connect(server) as client:
        loop = server.reactors[0].loop
        client.sendall(b"first")  # the handler's task has begun, and is parked
        assert b"first" == read_exactly(client, 5)
        call_soon = loop.call_soon

        def counted(*args: Any, **kwargs: Any) -> asyncio.Handle:
            scheduled.append(args[0])
            return call_soon(*args, **kwargs)

        monkeypatch.setattr(loop, "call_soon", counted)
        before = server.stats()
        for _ in range(100):
            client.sendall(b"again")
            assert b"again" == read_exactly(client, 5)
        after = server.stats()
        monkeypatch.undo()
        assert after.wakeups - before.wakeups >= 100
        assert 0 == after.posts - before.posts
        assert [] == scheduled


def _eventfd_count(reactor: ioxide.Reactor) -> int:
    info = Path(f"/proc/self/fdinfo/{reactor.driver.wake_fd}").read_text()
    return int(next(line.split()[1] for line in info.splitlines() if "eventfd-count" in line), 16)


@pytest.mark.parametrize(
    ("mode", "low", "high"),
    [
        pytest.param(ContinuationMode.POOL, 100, 101, id="pool"),
        pytest.param(ContinuationMode.POOL_COALESCED, 1, 1, id="pool_coalesced"),
    ],
)
def test_the_pools_differ_in_their_wakes(mode: ContinuationMode, low: int, high: int) -> None:
    """A hundred writes of a worker while the reactor is busy: a hundred eventfd writes, or one."""
    asked, go, wrote = threading.Event(), threading.Event(), threading.Event()

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv()
        asked.set()
        assert go.wait(TIMEOUT)  # holds this worker
        for _ in range(100):
            conn.write(b"w")
        wrote.set()

    with serve(handler, continuation_mode=mode) as server, connect(server) as client:
        client.sendall(b"x")
        assert asked.wait(TIMEOUT)
        reactor = server.reactors[0]
        # What the reactor was told of so far has been read by now, but for a return of this tick.
        on_reactor(reactor, lambda: None)
        counts: list[int] = []

        def hold() -> None:
            go.set()
            assert wrote.wait(TIMEOUT)
            counts.append(_eventfd_count(reactor))

        on_reactor(reactor, hold)
        assert b"w" * 100 == read_to_end(client)
    assert low <= counts[0] <= high, f"{counts[0]} eventfd writes for a hundred calls"


@pytest.mark.parametrize("mode", POOLS)
def test_one_hand_over_for_a_whole_batch(mode: ContinuationMode) -> None:
    """However many tasks of a worker can go on meanwhile, its loop is called once."""
    held, release = threading.Event(), threading.Event()

    async def handler(conn: ioxide.Connection) -> None:
        while data := await conn.recv():
            if data == b"hold":
                held.set()
                assert release.wait(TIMEOUT)
            conn.write(data)

    with (
        serve(handler, continuation_mode=mode, pool_threads=1) as server,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(connect(server)) for _ in range(17)]
        for client in clients:
            client.sendall(b"up")
            assert b"up" == read_exactly(client, 2)
        clients[0].sendall(b"hold")
        assert held.wait(TIMEOUT)
        before = server.stats()
        for half in (clients[1:9], clients[9:]):
            received = server.stats().bytes_received
            for client in half:
                client.sendall(b"go")
            until(lambda r=received: server.stats().bytes_received == r + 16, "the requests")  # type: ignore[misc]
        on_reactor(server.reactors[0], lambda: None)  # and another tick
        handoffs = server.stats().handoffs - before.handoffs
        release.set()
        assert b"hold" == read_exactly(clients[0], 4)
        for client in clients[1:]:
            assert b"go" == read_exactly(client, 2)
    assert 1 == handoffs
