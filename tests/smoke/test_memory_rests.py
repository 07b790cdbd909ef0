# SPDX-License-Identifier: MIT
"""An operation that the kernel had no memory for is tried again, and ends no connection.

tests/kernel_gated/test_failing_allocations.py has the kernel itself say so, where it can. Here its
word is forged: the receive is armed all the same, and what is looked at is what the reactor does.
"""

from __future__ import annotations

import errno

import pytest

import ioxide
from tests.kernel_gated.modes import MODES, Changes
from tests.support import at_rest, connect, echo, on_reactor, read_exactly, serve, until

RECV = 2
LISTENER = 1
"""Generations are counted from the listener's on: the connection has the next one."""


@pytest.mark.parametrize("changes", MODES)
def test_a_receive_without_memory_is_armed_again_after_a_rest(changes: Changes) -> None:
    conns: list[ioxide.Connection] = []

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        await echo(conn)

    with serve(handler, **changes) as server, connect(server) as client:
        client.sendall(b"before")
        assert b"before" == read_exactly(client, 6)
        reactor = server.reactors[0]
        driver = reactor.driver
        before = server.stats()
        forged = [(RECV << 56 | (LISTENER + 1) << 32, -errno.ENOMEM, 0)]
        seen: list[ioxide.Counters] = []

        def short_of_memory() -> None:
            driver._core._feed(forged)
            seen.append(server.stats())

        on_reactor(reactor, short_of_memory)
        assert (0, 1) == (before.memory_rests, seen[0].memory_rests)
        until(lambda: at_rest(server), "the end of the rest")
        after = server.stats()
        assert (1, 1) == (after.recv_rearms - before.recv_rearms, after.memory_rests)
        assert after.enters - before.enters < 20, "it was tried again and again"
        client.sendall(b"after")
        assert b"after" == read_exactly(client, 5)
        assert not conns[0].closed
    stats = server.stats()
    assert (0, 0, 1) == (stats.handler_faults, stats.closes_error, stats.memory_rests)
