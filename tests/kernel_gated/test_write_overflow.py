# SPDX-License-Identifier: MIT
"""What becomes of batches larger than a write slab: grown or segmented, in every way to receive.

What is to be copied is written as a bytearray: large `bytes` are sent from where they are
(test_held_writes.py).
"""

from __future__ import annotations

import ctypes
import os
import struct

import pytest

import ioxide
from ioxide import WriteOverflow
from tests.kernel_gated.modes import MODES, OVERFLOWS, SENDS, Changes, brief
from tests.support import (
    NARROW,
    Whole,
    connect,
    noise,
    on_reactor,
    read_exactly,
    read_to_end,
    serve,
    until,
    widen,
)

PAGE = os.sysconf("SC_PAGESIZE")
SEGMENTED = WriteOverflow.SEGMENTED

# io_uring_register(2), the same number on every architecture; IORING_REGISTER_SYNC_CANCEL is of 6.0
# and cancels by user_data (struct io_uring_sync_cancel_reg: addr, fd, flags, timeout, padding).
_REGISTER, _SYNC_CANCEL = 427, 24


def _cut_send(driver: ioxide.Driver, number: int) -> None:
    """Cancel the SEND in flight of a reactor's `number`th connection, the only one there is; on
    the reactor's thread.

    What the kernel then reports is what it has moved, as for any short send.
    """
    # Listeners and connections draw generations from one counter that begins with 1.
    user_data = 3 << 56 | (1 + number) << 32 | 0
    argument = struct.pack("=QiIqq32x", user_data, -1, 0, -1, -1)
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(_REGISTER, driver.ring_fd, _SYNC_CANCEL, argument, 1)
    assert 0 == result, os.strerror(ctypes.get_errno())


def _check(body: bytes, got: bytes) -> None:
    assert Whole(body) == Whole(got), "bytes were lost, repeated or moved"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("send", SENDS)
@pytest.mark.parametrize("overflow", OVERFLOWS)
def test_batches_of_every_size_are_sent_whole(
    mode: Changes, send: Changes, overflow: Changes
) -> None:
    """Batches around multiples of a slab, written in one piece or in odd ones, come back whole."""
    sizes = [1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 3 * PAGE + 1, 40 * PAGE, 100 * PAGE - 7]
    bodies = [noise(size, seed=number) for number, size in enumerate(sizes)]

    async def handler(conn: ioxide.Connection) -> None:
        while choice := await conn.recv(2):
            body = bytearray(bodies[choice[0]])
            step = 1 << 30 if choice[1] == ord("w") else 1000
            for at in range(0, len(body), step):
                conn.write(body[at : at + step])

    with (
        serve(handler, write_slab_size=PAGE, pool_max=8, **mode, **send, **overflow) as server,
        connect(server) as client,
    ):
        for pieces in b"wp":
            for index, body in enumerate(bodies):
                client.sendall(bytes([index, pieces]))
                got = read_exactly(client, len(body))
                _check(body, got)
        stats = server.stats()
        vectored, zero_copy = stats.sends_vectored, stats.sends_zc
        assert bool(overflow) == (vectored >= 10), f"{vectored} messages of several slabs"
        assert bool(overflow) == (stats.slab_grows == 0)
        assert bool(send) == (zero_copy > 0), f"{zero_copy} sends without a copy"


@pytest.mark.parametrize("send", SENDS)
def test_more_slabs_than_one_message_takes(send: Changes) -> None:
    """A batch of more slabs than UIO_MAXIOV (1024, sendmsg(2)) goes out in several messages."""
    body = noise(2500 * PAGE + 17, seed=1024)

    async def handler(conn: ioxide.Connection) -> None:
        conn.write(bytearray(body))

    with (
        serve(handler, write_slab_size=PAGE, write_overflow=SEGMENTED, **send) as server,
        connect(server) as client,
    ):
        got = read_to_end(client)
        _check(body, got)
        assert server.stats().partial_sends >= 2
        assert server.stats().sends_vectored >= 2
        assert bool(send) == (server.stats().sends_zc > 0), "SENDMSG_ZC if and only if asked for"


@pytest.mark.parametrize("mode", brief(MODES))
@pytest.mark.parametrize("send", SENDS)
@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("kind", [bytearray, bytes])
def test_a_send_cut_short_goes_on_where_it_stopped(
    kind: type[bytearray | bytes], mode: Changes, send: Changes, overflow: Changes
) -> None:
    """A send that ends in the middle of a slab, or of held bytes, goes on from that very byte."""
    slab = 3 * PAGE  # so that what a socket takes, in pages, seldom ends with a slab
    body = noise(8 << 20, seed=7)
    middle = 0

    async def handler(conn: ioxide.Connection) -> None:
        while await conn.recv(1):
            conn.write(b"before")
            conn.write(kind(body))
            conn.write(b"behind")

    with serve(handler, write_slab_size=slab, **mode, **send, **overflow) as server:
        reactor = server.reactors[0]
        for number in range(1, 4):
            with connect(server, rcvbuf=NARROW) as client:
                client.sendall(b"x")
                # The receive, then the SEND, which the peer's window holds up.
                until(lambda n=number: server.stats().bytes_received == n, "the request")  # type: ignore[misc]
                sends = server.stats().sends
                on_reactor(reactor, lambda: None)
                on_reactor(reactor, lambda n=number: _cut_send(reactor.driver, n))  # type: ignore[misc]
                until(lambda s=sends: server.stats().sends > s, "a SEND for what was left")  # type: ignore[misc]
                middle += server.stats().bytes_sent % slab != 0
                widen(client)
                got = read_exactly(client, len(body) + 12)
                _check(b"before" + body + b"behind", got)
            until(lambda: server.stats().connections_now == 0, "the connection's end")
        assert (3 if kind is bytes else 0) == server.stats().writes_held
        assert server.stats().partial_sends >= 3
        assert middle, "no send ended in the middle of a slab"


@pytest.mark.parametrize("mode", MODES)
def test_segments_come_from_the_pool_and_go_back(mode: Changes) -> None:
    """After the first large batch no slab is mapped any more, and none is ever larger."""
    body = bytearray(b"s" * (10 * PAGE))

    async def handler(conn: ioxide.Connection) -> None:
        while await conn.recv(1):
            conn.write(body)

    with (
        serve(handler, write_slab_size=PAGE, write_overflow=SEGMENTED, **mode) as server,
        connect(server) as client,
    ):
        for _ in range(20):
            client.sendall(b"x")
            assert body == read_exactly(client, len(body))
        stats = server.stats()
        assert (10, 190) == (stats.slab_misses, stats.slab_hits)
        assert 10 * PAGE == stats.slab_bytes_now


def test_a_slab_grows_no_further_than_the_limit() -> None:
    """Doubling stops at write_limit: the slab of a full batch is that large and no larger."""
    limit = 25 * PAGE
    mapped: list[int] = []

    async def handler(conn: ioxide.Connection) -> None:
        for _ in range(25):
            conn.write(b"g" * PAGE)
        with pytest.raises(BufferError, match="write_limit"):
            conn.write(b"g")
        mapped.append(server.stats().slab_bytes_now)

    with (
        serve(handler, write_slab_size=PAGE, write_limit=limit) as server,
        connect(server) as client,
    ):
        assert limit == len(read_to_end(client))
        assert 5 == server.stats().slab_grows
    assert [limit] == mapped


def test_a_grown_slab_is_used_again() -> None:
    """Large answers one after the other map memory for the first of them, not for each."""
    body = b"g" * (30 * PAGE)

    async def handler(conn: ioxide.Connection) -> None:
        while await conn.recv(1):
            for at in range(0, len(body), PAGE):
                conn.write(body[at : at + PAGE])

    with serve(handler, write_slab_size=PAGE) as server, connect(server) as client:
        for _ in range(50):
            client.sendall(b"x")
            assert body == read_exactly(client, len(body))
        stats = server.stats()
        assert stats.slab_misses + stats.slab_grows <= 10, "memory mapped for each answer"


def test_grown_slabs_at_rest_are_bounded_and_shrink() -> None:
    """What rests is at most twice pool_max slabs' bytes; nothing grown outlives the connections."""
    count, body = 20, bytearray(b"g" * (64 * PAGE))
    conns: list[ioxide.Connection] = []
    mapped: list[int] = []

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        await conn.recv(1)
        conn.write(body)
        mapped.append(server.stats().slab_bytes_now)
        await conn.recv(1)

    with serve(handler, write_slab_size=PAGE, pool_max=100) as server:
        clients = [connect(server) for _ in range(count)]
        socks = [client.__enter__() for client in clients]
        try:
            until(lambda: len(conns) == count, "all connections")

            def all_at_once() -> None:
                for sock in socks:
                    sock.sendall(b"x")

            on_reactor(server.reactors[0], all_at_once)
            for sock in socks:
                assert body == read_exactly(sock, len(body))
            until(lambda: server.stats().bytes_sent == count * len(body), "all sent")
            on_reactor(server.reactors[0], lambda: None)
            assert max(mapped) > 200 * PAGE, "too few batches at once to tell anything"
            resting = server.stats().slab_bytes_now
            assert 64 * PAGE <= resting <= 200 * PAGE, f"{resting // PAGE} pages at rest"
        finally:
            for client in clients:
                client.__exit__(None, None, None)
        until(lambda: server.stats().connections_now == 0, "the connections' end")
        assert 0 == server.stats().slab_bytes_now, "grown slabs of nobody"
    assert 0 == server.stats().slab_bytes_now, "slabs left mapped"
