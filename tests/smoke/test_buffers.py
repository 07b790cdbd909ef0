# SPDX-License-Identifier: MIT
"""Receive buffers: shared by all connections, lent out, given back, and sometimes all gone."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
import threading

import pytest

import ioxide
from tests.support import (
    TIMEOUT,
    CutError,
    connect,
    echo,
    on_reactor,
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


def test_no_buffer_left_stalls_and_goes_on() -> None:
    """With every buffer held, a receive waits instead of closing, and goes on in order (#93)."""
    sent = random.Random(93).randbytes(24 * 1024)
    release = threading.Event()
    digests: list[str] = []

    async def handler(conn: ioxide.Connection) -> None:
        async with conn.read() as slices:  # holds a buffer; the others fill up behind it
            body = b"".join(slices)
            await asyncio.to_thread(release.wait, TIMEOUT)
        while data := await conn.recv():
            body += data
        digests.append(hashlib.sha256(body).hexdigest())
        conn.write(b"whole")

    with (
        serve(handler, recv_slots=8, recv_buffer_size=1024) as server,
        connect(server) as client,
    ):
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        until(lambda: server.stats().recv_enobufs >= 1, "a receive without a buffer")

        enters = server.stats().enters
        client.setblocking(False)
        with pytest.raises(BlockingIOError):  # neither closed nor answered
            client.recv(1)
        client.settimeout(TIMEOUT)
        threading.Event().wait(0.3)
        assert server.stats().enters - enters < 5  # parked, not spinning

        release.set()
        assert b"whole" == read_to_end(client)
        assert 0 == server.stats().buffers_held_now
    assert [hashlib.sha256(sent).hexdigest()] == digests


def test_idle_connections_do_not_starve_a_busy_one() -> None:
    """One buffer that comes back serves whoever has bytes, not just who has waited longest."""
    holding, release = threading.Event(), threading.Event()

    async def handler(conn: ioxide.Connection) -> None:
        async with conn.read() as slices:
            if slices and bytes(slices[0]) == b"hold":
                holding.set()
                await asyncio.to_thread(release.wait, TIMEOUT)
        conn.write(b"served")

    with serve(handler, recv_slots=1) as server, connect(server) as holder:
        holder.sendall(b"hold")
        assert holding.wait(TIMEOUT)
        with connect(server), connect(server) as busy:  # the first one stays silent
            busy.sendall(b"x")
            until(lambda: server.stats().recv_enobufs >= 2, "both wait for a buffer")
            release.set()
            assert b"served" == read_to_end(busy)
            assert b"served" == read_to_end(holder)


def test_full_queue_pauses_the_receive() -> None:
    """At recv_queue_entries the receive is paused and later goes on; nothing is closed or lost."""
    sent = random.Random(97).randbytes(200_000)
    release = threading.Event()
    digests: list[str] = []

    async def handler(conn: ioxide.Connection) -> None:
        await asyncio.to_thread(release.wait, TIMEOUT)
        body = bytearray()
        while data := await conn.recv():
            body += data
        if len(body) > 1:  # not the other connection's
            digests.append(hashlib.sha256(body).hexdigest())
        conn.write(b"whole")

    def send() -> None:
        with contextlib.suppress(CutError):  # every later call on `client` raises it again
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)

    with (
        serve(handler, recv_queue_entries=4, recv_slots=256, recv_buffer_size=512) as server,
        connect(server) as client,
        connect(server) as other,
    ):
        sender = threading.Thread(target=send)
        sender.start()
        until(lambda: server.stats().recv_pauses >= 1, "a paused receive")
        other.sendall(b"?")
        release.set()
        assert b"whole" == read_to_end(client)
        sender.join()
        # How far a queue outgrows the limit is the kernel's: a turn of a multishot receive takes up
        # to 33 buffers on 6.18, and on 6.1 as many as there are bytes.
    assert [hashlib.sha256(sent).hexdigest()] == digests


def test_completion_queue_overflow_loses_nothing() -> None:
    """A batch larger than the completion queue ends multishots; all bytes still come (#95)."""
    count = 24
    conns: list[ioxide.Connection] = []

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        await echo(conn)

    with serve(
        handler, ring_entries=4, cq_entries=8, recv_slots=256, recv_buffer_size=64
    ) as server:
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(count)]
        try:
            until(lambda: len(conns) == count, "all connections")
            for round_number in range(4):
                message = b"%02d" % round_number * 64

                def block(message: bytes = message) -> None:
                    for client in clients:
                        client.sendall(message)

                on_reactor(server.reactors[0], block)
                for client in clients:
                    client.settimeout(TIMEOUT)
                    assert message == read_exactly(client, len(message))
            assert server.stats().cq_overflow_events >= 1
            # The wake-up survived it too.
            on_reactor(server.reactors[0], lambda: None)
        finally:
            for client in clients:
                client.close()
