# SPDX-License-Identifier: MIT
"""Tracking issue #104: the acceptance list in each continuation mode, and with eager tasks."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest

import ioxide
from ioxide import ContinuationMode, ReactorContext
from tests.smoke.test_context_awaits import AWAITS, Trail, http
from tests.support import SMALL, connect, read_exactly, read_to_end, serve

pytestmark = pytest.mark.issue(104)

# Each of a connection's requests awaits the next one of the list.
Seen = list[tuple[int, Trail, ReactorContext | None]]


def walk(server: ioxide.Server, connections: int = 2) -> None:
    """Clients, one after the other, that go through the whole list."""
    for _ in range(connections):
        with connect(server) as client:
            for _awaits in AWAITS:
                client.sendall(b"x")
                assert b"x" == read_exactly(client, 1)
            # The handler's end: the next connection's may be on another worker, and be faster.
            assert b"" == read_to_end(client)


async def walk_with(conn: ioxide.Connection, url: str, seen: Seen) -> None:
    """The handler's side of `walk()`."""
    home = threading.get_ident()
    for awaits, _, _ in AWAITS:
        data = await conn.recv()
        trail = Trail(url)
        trail.here()
        await awaits(trail)
        trail.here()
        conn.write(data)
        await conn.flush()
        trail.here()
        seen.append((home, trail, ReactorContext.current()))


# What is awaited goes home inline in tests/smoke/test_context_awaits.py: of the others a short run
# takes the one that is least like it.
ONE_MODE = [
    pytest.param(
        mode, id=mode.value, marks=[] if mode is ContinuationMode.POOL else [pytest.mark.slow]
    )
    for mode in ContinuationMode
]


@pytest.mark.parametrize("mode", ONE_MODE)
def test_comes_home_in_every_mode(mode: ContinuationMode) -> None:
    """A handler goes on where it began: on the reactor, or in the pool modes on its worker."""
    seen: Seen = []

    async def handler(conn: ioxide.Connection) -> None:
        await walk_with(conn, url, seen)

    with serve(http) as origin, serve(handler, continuation_mode=mode) as server:
        url = f"http://127.0.0.1:{origin.port}/"
        walk(server)
        reactor = server.reactors[0]
        stats = server.stats()
        assert (0, 0, 0) == (stats.handler_faults, stats.task_faults, stats.callback_faults)

    assert 2 * len(AWAITS) == len(seen)
    for (home, trail, context), (awaits, steps, elsewhere) in zip(seen, 2 * AWAITS, strict=True):
        name = awaits.__name__
        assert {home} == set(trail.steps), name
        assert steps + 3 == len(trail.steps), name
        assert elsewhere == len(trail.elsewhere), name
        if mode.pooled:
            assert reactor.thread_ident != home
            assert context is None
        else:
            assert reactor.thread_ident == home
            assert reactor.context is context
        if name == "_detached" and mode.pooled:
            assert [home] == trail.elsewhere  # off the reactor as it is
        else:
            assert home not in trail.elsewhere, name


if sys.version_info >= (3, 12):

    def _eager(reactor: ioxide.Reactor) -> None:
        reactor.loop.set_task_factory(asyncio.eager_task_factory)

    def test_comes_home_with_eager_tasks() -> None:
        """With asyncio's eager tasks (3.12) everything comes home as well."""
        seen: Seen = []

        async def handler(conn: ioxide.Connection) -> None:
            await walk_with(conn, url, seen)

        with serve(http) as origin, ioxide.Server(handler, SMALL, on_start=_eager) as server:
            url = f"http://127.0.0.1:{origin.port}/"
            walk(server)
            stats = server.stats()
            assert (0, 0, 0) == (stats.handler_faults, stats.task_faults, stats.callback_faults)
            assert stats.wakeups > 0
            homes = {home for home, _, _ in seen}
            assert {server.reactors[0].thread_ident} == homes
        assert 2 * len(AWAITS) == len(seen)
        for home, trail, _ in seen:
            assert {home} == set(trail.steps)

    def test_an_eager_handler_may_end_at_once() -> None:
        """An eager handler that never suspends has ended before create_task() returns."""
        inside: list[bool] = []

        async def handler(conn: ioxide.Connection) -> None:
            inside.append(asyncio.current_task() is not None)
            conn.write(b"at once")

        with ioxide.Server(handler, SMALL, on_start=_eager) as server:
            for _ in range(3):
                with connect(server) as client:
                    assert b"at once" == read_to_end(client)
        assert [True] * 3 == inside
        assert 3 == server.stats().closes

    def test_eager_tasks_among_handlers() -> None:
        """A task that a handler starts runs at once, parks in recv() and is resumed inline."""
        order: list[str] = []

        async def handler(conn: ioxide.Connection) -> None:
            async def read() -> bytes:
                order.append("begun")
                data = await conn.recv()
                order.append("resumed")
                return data

            task = asyncio.create_task(read())
            order.append("after create_task()")
            conn.write(b"k")
            conn.write(await task)

        with ioxide.Server(handler, SMALL, on_start=_eager) as server, connect(server) as client:
            assert b"k" == read_exactly(client, 1)
            client.sendall(b"x")
            assert b"x" == read_to_end(client)
            assert server.stats().wakeups >= 1
        assert ["begun", "after create_task()", "resumed"] == order
