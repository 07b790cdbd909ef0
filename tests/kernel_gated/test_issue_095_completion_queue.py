# SPDX-License-Identifier: MIT
"""Issue #95: the completion queue's size is its own option, and a full one loses nothing.

A multishot produces completions without submissions, so a burst can exceed the completion queue
between two enters.  The kernel then spills into a list and ends every multishot that it touches:
its last completion has F_MORE clear, be it a success or not (6.18).
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading

import pytest

import ioxide
from tests.kernel_gated.modes import MODES, Changes
from tests.support import (
    TIMEOUT,
    Client,
    asleep,
    connect,
    echo,
    on_reactor,
    read_exactly,
    serve,
    until,
    wait_unread,
)

pytestmark = [pytest.mark.kernel_gated, pytest.mark.issue(95)]


@pytest.mark.parametrize(("entries", "overflows"), [(8, True), (1024, False)])
def test_a_large_completion_queue_holds_the_flood(entries: int, overflows: bool) -> None:
    """4 KiB in buffers of 64 bytes overflow 8 completions and not 1024; both lose nothing."""
    conns: list[ioxide.Connection] = []
    sent = random.Random(entries).randbytes(4096)

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        await echo(conn)

    with (
        serve(
            handler, ring_entries=4, cq_entries=entries, recv_slots=256, recv_buffer_size=64
        ) as server,
        connect(server) as client,
    ):
        until(lambda: len(conns) == 1, "the connection")

        def block() -> None:
            client.sendall(sent)
            wait_unread(conns[0].fileno(), len(sent))

        on_reactor(server.reactors[0], block)
        assert sent == read_exactly(client, len(sent))
        assert entries == server.reactors[0].driver.cq_entries
        assert overflows == (server.stats().cq_overflow_events > 0)


def test_accepts_survive_a_full_completion_queue() -> None:
    """Of 24 clients that connect while the reactor is busy, a queue of 8 completions loses none."""
    count = 24
    with (
        serve(echo, ring_entries=4, cq_entries=8) as server,
        contextlib.ExitStack() as stack,
    ):
        clients: list[socket.socket] = [stack.enter_context(Client()) for _ in range(count)]

        def block() -> None:
            for client in clients:
                client.settimeout(TIMEOUT)
                client.connect(("127.0.0.1", server.port))  # the kernel's backlog takes it

        on_reactor(server.reactors[0], block)
        until(lambda: server.stats().accepts == count, "all connections taken")
        assert server.stats().accept_rearms >= 1
        for number, client in enumerate(clients):
            client.sendall(b"client %02d" % number)
            assert b"client %02d" % number == read_exactly(client, 9)


def test_a_wake_survives_a_full_completion_queue() -> None:
    """A post whose wake shares its tick with a flood of accepts and bytes still runs."""
    conns: list[ioxide.Connection] = []
    ran = threading.Event()

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        await echo(conn)

    with (
        serve(handler, ring_entries=4, cq_entries=8, recv_slots=256, recv_buffer_size=64) as server,
        connect(server) as client,
    ):
        until(lambda: len(conns) == 1, "the connection")

        def block() -> None:
            client.sendall(b"x" * 4096)
            wait_unread(conns[0].fileno(), 4096)
            poster = threading.Thread(target=server.reactors[0].post, args=(ran.set,))
            poster.start()
            poster.join(TIMEOUT)

        on_reactor(server.reactors[0], block)
        until(ran.is_set, "the posted callback")
        assert b"x" * 4096 == read_exactly(client, 4096)
        assert server.stats().cq_overflow_events >= 1
        # And the next wake, of a sleeping reactor. A timer of its own may wake it in time, too.
        until(lambda: asleep(server), "the reactor asleep")
        wakes = server.stats().wake_cqes
        on_reactor(server.reactors[0], lambda: None)
        until(lambda: server.stats().wake_cqes > wakes, "the completion of a wake")


@pytest.mark.parametrize("mode", MODES)
def test_completion_queue_overflow_loses_nothing(mode: Changes) -> None:
    """Eight rounds of 24 messages into a queue of 8 completions: every echo matches."""
    count = 24
    conns: list[ioxide.Connection] = []

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        await echo(conn)

    with (
        serve(handler, **mode, ring_entries=4, cq_entries=8) as server,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(connect(server)) for _ in range(count)]
        until(lambda: len(conns) == count, "all connections")
        for number in range(8):
            message = b"%02d" % number * 16

            def block(message: bytes = message) -> None:
                for client in clients:
                    client.sendall(message)
                for conn in conns:
                    wait_unread(conn.fileno(), len(message))

            on_reactor(server.reactors[0], block)
            for client in clients:
                assert message == read_exactly(client, len(message))
        assert server.stats().cq_overflow_events >= 1
        on_reactor(server.reactors[0], lambda: None)
