# SPDX-License-Identifier: MIT
"""The reactor's 24-bit counter of generations comes round; nobody is taken for somebody else.

A completion is for a connection when generation and slot are both its own.  A slot is given away
when the last completion of its owner has come, so two that live at once may share a generation.
"""

from __future__ import annotations

import contextlib

import pytest

import ioxide
from tests.kernel_gated.modes import MODES, Changes
from tests.support import connect, echo, on_reactor, read_exactly, serve, until

pytestmark = pytest.mark.kernel_gated

LAST = (1 << 24) - 1
RECV, SEND = 2, 3
ECONNRESET = 104


def _set_generation(reactor: ioxide.Reactor, generation: int) -> None:
    on_reactor(reactor, lambda: setattr(reactor.driver._core, "_generation", generation))


@pytest.mark.parametrize("changes", MODES)
def test_connections_before_and_after_the_wrap(changes: Changes) -> None:
    """Four before the wrap and four after it are served side by side; 0 is left out."""
    with serve(echo, **changes) as server, contextlib.ExitStack() as stack:
        reactor = server.reactors[0]
        _set_generation(reactor, LAST - 4)
        clients = []
        for number in range(8):
            client = stack.enter_context(connect(server))
            clients.append(client)
            client.sendall(b"%d" % number)
            assert b"%d" % number == read_exactly(client, 1)
        assert 4 == reactor.driver._core._generation, "from the last one to 1"
        for number, client in enumerate(clients):
            client.sendall(b"again %d" % number)
        for number, client in enumerate(clients):
            assert b"again %d" % number == read_exactly(client, 7)
        stats = server.stats()
    assert (8, 0, 0) == (stats.accepts, stats.stale_cqes, stats.unknown_cqes)


def test_a_completion_from_before_the_wrap_is_stale() -> None:
    """The connection after the wrap, in the slot of the one before it, gets none of its ends."""
    with serve(echo) as server:
        reactor = server.reactors[0]
        _set_generation(reactor, LAST - 1)
        with connect(server) as client:
            client.sendall(b"old")
            assert b"old" == read_exactly(client, 3)
            assert LAST == reactor.driver._core._generation
        until(lambda: server.stats().connections_now == 0, "the end of the old one")
        with connect(server) as client:
            client.sendall(b"new")
            assert b"new" == read_exactly(client, 3)
            assert 1 == reactor.driver._core._generation
            late = [(kind << 56 | LAST << 32, -ECONNRESET, 0) for kind in (RECV, SEND)]
            on_reactor(reactor, lambda: reactor.driver._core._feed(late))
            assert 2 == server.stats().stale_cqes, "taken for the new one's"
            own = [(SEND << 56 | 1 << 32, -ECONNRESET, 0)]  # known, but nothing is in flight
            on_reactor(reactor, lambda: reactor.driver._core._feed(own))
            assert 3 == server.stats().stale_cqes
            client.sendall(b"still")
            assert b"still" == read_exactly(client, 5)


@pytest.mark.parametrize("changes", MODES)
def test_two_that_share_a_generation(changes: Changes) -> None:
    """A live connection's generation comes round: each gets its own bytes and its own end."""
    conns: list[ioxide.Connection] = []

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        await echo(conn)

    with serve(handler, **changes) as server, contextlib.ExitStack() as stack:
        reactor = server.reactors[0]
        clients = []
        for number in range(4):
            _set_generation(reactor, 41)  # as if 2^24 others had come and gone since
            client = stack.enter_context(connect(server))
            clients.append(client)
            client.sendall(b"%d" % number)
            assert b"%d" % number == read_exactly(client, 1)
            assert 42 == reactor.driver._core._generation
        for left in (3, 2, 1):
            on_reactor(reactor, conns[left].abort)  # cancels its receive, by user_data
            with pytest.raises(ConnectionResetError):
                clients[left].recv(1)
            for number in range(left):
                clients[number].sendall(b"%d after %d" % (number, left))
            for number in range(left):
                assert b"%d after %d" % (number, left) == read_exactly(clients[number], 9)
            assert left == server.stats().connections_now
        assert (0, 3) == (server.stats().handler_faults, server.stats().aborts)
