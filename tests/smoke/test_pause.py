# SPDX-License-Identifier: MIT
"""Issue #93's neighbour: a connection whose queue is full leaves the rest in its socket."""

from __future__ import annotations

import asyncio
import random
import threading

import ioxide
from tests.support import (
    TIMEOUT,
    connect,
    on_reactor,
    read_to_end,
    serve,
    unread,
    until,
    wait_unread,
)


def test_a_full_queue_leaves_bytes_in_the_socket() -> None:
    """Of 128 parts that wait, a paused receive takes a turn's worth, however many ticks pass."""
    sent = random.Random(128).randbytes(64 * 1024)
    conns: list[ioxide.Connection] = []
    release = threading.Event()

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        await asyncio.to_thread(release.wait, TIMEOUT)
        while data := await conn.recv():
            conn.write(data)

    with (
        serve(handler, recv_queue_entries=4, recv_slots=256, recv_buffer_size=512) as server,
        connect(server) as client,
    ):
        until(lambda: len(conns) == 1, "the connection")

        def block() -> None:
            client.sendall(sent)
            wait_unread(conns[0].fileno(), len(sent))

        on_reactor(server.reactors[0], block)
        until(lambda: server.stats().recv_pauses == 1, "a paused receive")
        for _ in range(40):  # ticks; the kernel takes at least one part in each, if it may
            on_reactor(server.reactors[0], lambda: None)
        # It takes up to 33 parts in a turn (6.18), and may have begun a second one.
        assert len(sent) / 4 < unread(conns[0].fileno())
        assert server.stats().buffers_held_now <= 3 * 33

        release.set()
        client.shutdown(1)
        assert sent == read_to_end(client)
        assert 0 == server.stats().recv_enobufs
