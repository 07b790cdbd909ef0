# SPDX-License-Identifier: MIT
"""A tick takes in all that waits, and hands over all that was written, at once."""

from __future__ import annotations

from contextlib import ExitStack

import ioxide
from tests.support import connect, on_reactor, read_exactly, serve, until, wait_unread

CLIENTS = 60


def test_a_batch_takes_one_enter() -> None:
    """Sixty requests that wait are taken in by one enter, also where it would run 20 (6.14)."""
    conns: list[ioxide.Connection] = []
    resumed_in: list[int] = []

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        while data := await conn.recv():
            resumed_in.append(reactor.stats().enters)
            conn.write(data)

    with serve(handler) as server, ExitStack() as stack:
        reactor = server.reactors[0]
        clients = [stack.enter_context(connect(server)) for _ in range(CLIENTS)]
        # The first round fills the part of the completion queue that lets the next one be whole.
        for client in clients:
            client.sendall(b"?")
            assert b"?" == read_exactly(client, 1)
        until(lambda: len(conns) == CLIENTS, "every handler")
        resumed_in.clear()

        def block() -> None:
            for client in clients:
                client.sendall(b"!")
            for conn in conns:
                wait_unread(conn.fileno(), 1)

        on_reactor(reactor, block)
        for client in clients:
            assert b"!" == read_exactly(client, 1)

    assert CLIENTS == len(resumed_in)
    assert 1 == len(set(resumed_in)), "the batch was torn"
