# SPDX-License-Identifier: MIT
"""Issue #94: a handler that faults, in whatever way, releases its connection exactly once.

A descriptor that nobody closes stays in CLOSE_WAIT for ever once the peer has gone (tcp(7)); in
incremental mode the group id stays with it, and a cap's worth of faults ends all accepting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

import ioxide
from tests.kernel_gated.modes import MODES, Changes
from tests.support import connect, echo, on_reactor, read_exactly, read_to_end, serve, until

pytestmark = [pytest.mark.kernel_gated, pytest.mark.issue(94)]

Fault = Callable[[ioxide.Connection], Awaitable[None]]

_CLOSE_WAIT = "08"  # <net/tcp_states.h>


def _in_close_wait(port: int) -> int:
    """Connections of `port` whose peer has gone and whose descriptor nobody closes."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == _CLOSE_WAIT for row in rows)


async def at_once(_: ioxide.Connection) -> None:
    raise ValueError("on purpose")


async def after_an_await(conn: ioxide.Connection) -> None:
    await conn.recv()
    raise ValueError("on purpose")


async def resumed_by_another_thread(conn: ioxide.Connection) -> None:
    await conn.recv()
    await asyncio.to_thread(int)
    raise ValueError("on purpose")


async def after_its_own_close(conn: ioxide.Connection) -> None:
    await conn.recv()
    conn.close()
    raise ValueError("on purpose")


async def inside_a_read_block(conn: ioxide.Connection) -> None:
    async with conn.read():
        raise ValueError("on purpose")


async def cancelled(conn: ioxide.Connection) -> None:
    await conn.recv()
    raise asyncio.CancelledError


FAULTS: list[Fault] = [
    at_once,
    after_an_await,
    resumed_by_another_thread,
    after_its_own_close,
    inside_a_read_block,
    cancelled,
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_faulted_handler_is_released_once(fault: Fault, mode: Changes) -> None:
    """Three times a cap's worth of faults leave room for the next; each peer sees its own end."""
    served = 0

    async def handler(conn: ioxide.Connection) -> None:
        nonlocal served
        served += 1
        if served <= 12:
            await fault(conn)
        await echo(conn)

    if "incremental" in mode:
        own = ioxide.IncrementalConfig(max_connections=4, recv_slots=4, recv_buffer_size=1024)
        mode = {"incremental": own}
    with serve(handler, max_connections=4, **mode) as server:

        def closed(count: int) -> bool:
            return server.stats().closes == count

        for number in range(12):
            with connect(server) as client:
                client.sendall(b"x")
                assert b"" == read_to_end(client)  # although this side has not closed
            until(partial(closed, number + 1), "the descriptor closed")
        with connect(server) as client:
            client.sendall(b"the thirteenth")
            assert b"the thirteenth" == read_exactly(client, 14)
        until(lambda: server.stats().connections_now == 0, "the last one's end")
        assert 0 == _in_close_wait(server.port)
        stats = server.stats()
    assert (13, 0, 13) == (stats.accepts, stats.accepts_shed, stats.closes)
    assert (0 if fault is cancelled else 12) == stats.handler_faults
    assert 0 == stats.buffers_held_now


def test_a_handler_cancelled_before_its_first_step_is_released() -> None:
    """A task that never ran still gives its connection back."""

    def factory(loop, coro, **kwargs):  # type: ignore[no-untyped-def]
        task = asyncio.Task(coro, loop=loop, **kwargs)
        task.cancel()
        return task

    with serve(echo) as server:
        loop = server.reactors[0].loop
        on_reactor(server.reactors[0], lambda: loop.set_task_factory(factory))
        with connect(server) as client:
            assert b"" == client.recv(1)
        until(lambda: server.stats().connections_now == 0, "the connection released")
        on_reactor(server.reactors[0], lambda: loop.set_task_factory(None))
