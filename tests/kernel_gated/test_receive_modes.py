# SPDX-License-Identifier: MIT
"""What every way to receive has to guarantee: bytes whole and in order, buffers all back."""

from __future__ import annotations

import random

import pytest

import ioxide
from tests.kernel_gated.modes import MODES, SMALL_INCREMENTAL, Changes
from tests.support import (
    connect,
    echo,
    on_reactor,
    read_exactly,
    read_to_end,
    serve,
    until,
    wait_unread,
)

pytestmark = pytest.mark.kernel_gated


@pytest.mark.needs("INC")
def test_incremental_appends() -> None:
    """Small messages one after the other go on in the same buffer instead of using one each."""
    with serve(echo, incremental=SMALL_INCREMENTAL) as server, connect(server) as client:
        for number in range(64):
            message = b"message %03d" % number
            client.sendall(message)
            assert message == read_exactly(client, len(message))
        assert server.stats().recv_appends >= 32


@pytest.mark.needs("BUNDLE")
def test_bundle_spans_buffers() -> None:
    """Bytes that wait in more than one buffer's length come in one completion."""
    conns: list[ioxide.Connection] = []

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        await echo(conn)

    sent = random.Random(6).randbytes(8192)
    with (
        serve(handler, recv_bundle=True, recv_buffer_size=512) as server,
        connect(server) as client,
    ):
        until(lambda: len(conns) == 1, "the connection")

        def block() -> None:
            client.sendall(sent)
            wait_unread(conns[0].fileno(), len(sent))

        on_reactor(server.reactors[0], block)
        assert sent == read_exactly(client, len(sent))
        assert server.stats().recv_bundles >= 1


@pytest.mark.parametrize("mode", MODES)
def test_a_slice_outlives_its_connection(mode: Changes) -> None:
    """A view kept after the connection ended stays what it was, and its buffer comes back last."""
    kept: list[memoryview] = []

    async def handler(conn: ioxide.Connection) -> None:
        # A piece may be one byte: 6.10 shortens a buffer to what it expects (msg_inq).
        views: list[memoryview] = []
        while not b"".join(views).startswith((b"keep this", b"something else")):
            async with conn.read() as slices:
                views += [one[:] for one in slices]
        if b"".join(views) == b"keep this":
            kept.extend(views)

    with serve(handler, **mode) as server:
        with connect(server) as client:
            client.sendall(b"keep this")
            assert b"" == read_to_end(client)
        until(lambda: server.stats().closes == 1, "the connection's end")
        for _ in range(100):
            with connect(server) as client:
                client.sendall(b"something else")
                assert b"" == read_to_end(client)
        assert b"keep this" == b"".join(kept)
        assert len(kept) == server.stats().slices_lent_now
    assert b"keep this" == b"".join(kept)  # and after the reactor's end
    while kept:
        kept.pop().release()


@pytest.mark.parametrize("mode", MODES)
def test_early_returning_handlers_strand_no_buffer(mode: Changes) -> None:
    """Sixty-four connections whose handlers leave bytes unread, and all are answered."""

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv(1)
        conn.write(b"k")

    with serve(handler, **{"recv_slots": 16, **mode}) as server:
        for _ in range(64):
            with connect(server) as client:
                client.sendall(b"x" * 100)
                assert b"k" == read_to_end(client)
        until(lambda: server.stats().connections_now == 0, "all ended")
        assert 0 == server.stats().buffers_held_now
        assert 64 == server.stats().accepts
