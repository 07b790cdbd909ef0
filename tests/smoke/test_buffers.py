# SPDX-License-Identifier: MIT
"""Receive buffers: shared by all connections, lent out, given back, and sometimes all gone."""

from __future__ import annotations

import random
import socket

import pytest

import ioxide
from tests.support import (
    connect,
    read_exactly,
    read_to_end,
    serve,
    until,
)


def test_slices_are_the_received_bytes() -> None:
    """read() lends received bytes as read-only views; empty at the end of the stream."""
    sent = random.Random(100).randbytes(20_000)
    received = bytearray()
    ends: list[int] = []

    async def handler(conn: ioxide.Connection) -> None:
        while True:
            async with conn.read() as slices:
                if not slices:
                    ends.append(len(slices))
                    return
                for part in slices:
                    assert part.readonly
                    received.extend(part)

    with serve(handler) as server, connect(server) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        assert b"" == read_to_end(client)
        assert 0 == server.stats().buffers_held_now
        assert 0 == server.stats().handler_faults
    assert sent == bytes(received)
    assert [0] == ends


def test_a_slice_used_after_its_block_raises() -> None:
    """A view kept beyond the block raises ValueError instead of showing somebody else's bytes."""
    errors: list[str] = []

    async def handler(conn: ioxide.Connection) -> None:
        async with conn.read() as slices:
            kept = slices[0]
            assert bytes(kept) == b"secret"
        with pytest.raises(ValueError, match="released") as caught:
            bytes(kept)
        errors.append(str(caught.value))

    with serve(handler) as server, connect(server) as client:
        client.sendall(b"secret")
        assert b"" == read_to_end(client)
        assert 0 == server.stats().handler_faults
    assert 1 == len(errors)


def test_a_view_of_a_slice_keeps_its_buffer() -> None:
    """A view made of a slice and kept stays valid, and holds the buffer back until it goes."""
    kept: list[memoryview] = []

    async def handler(conn: ioxide.Connection) -> None:
        if not kept:
            async with conn.read() as slices:
                kept.append(slices[0][1:4])
        conn.write(b"k")
        while data := await conn.recv():
            conn.write(data)

    # A group of two: were the buffer given back, the next bytes would be written over it.
    with serve(handler, recv_slots=2) as server, connect(server) as client:
        client.sendall(b"abcdef")
        assert b"k" == read_exactly(client, 1)
        with connect(server) as other:
            assert b"k" == read_exactly(other, 1)
            for _ in range(8):
                other.sendall(b"ZZZZZZ")
                assert b"ZZZZZZ" == read_exactly(other, 6)
            assert 1 == server.stats().slices_lent_now
            assert b"bcd" == bytes(kept[0])
        kept.pop().release()  # on another thread than the reactor's
        until(lambda: server.stats().slices_lent_now == 0, "the slice given back")


def test_a_read_block_that_raises_gives_its_buffers_back() -> None:
    """However a read() block ends, its buffers return."""

    async def handler(conn: ioxide.Connection) -> None:
        with pytest.raises(LookupError):
            async with conn.read():
                raise LookupError
        conn.write(b"done")

    with serve(handler, recv_slots=1) as server:
        for _ in range(5):
            with connect(server) as client:
                client.sendall(b"x")
                assert b"done" == read_to_end(client)
        assert 0 == server.stats().slices_lent_now
