# SPDX-License-Identifier: MIT
"""Bytes go in, the same bytes come out."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

import pytest

import ioxide
from tests.support import (
    MIB,
    TIMEOUT,
    Whole,
    connect,
    echo,
    noise,
    read_exactly,
    read_to_end,
    sending,
    serve,
)


def test_echo() -> None:
    """What a client sends comes back, and the connection ends when the client ends it."""
    with serve(echo) as server, connect(server) as client:
        client.sendall(b"hello")
        assert b"hello" == read_exactly(client, 5)

        client.shutdown(socket.SHUT_WR)
        assert b"" == client.recv(1)


def test_two_hundred_connections_at_once() -> None:
    """Two hundred connections are open together and each gets its own bytes."""
    count = 200
    with serve(echo) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(count)]
        for number, client in enumerate(clients):
            client.sendall(b"client %03d" % number)
        for number, client in enumerate(clients):
            assert b"client %03d" % number == read_exactly(client, 10)

        stats = server.stats()
        assert count == stats.connections_now
        assert count == stats.accepts


def test_eight_mebibytes_each_way() -> None:
    """Eight MiB each way, both directions at once, arrive whole and in order."""
    sent = noise(8 * MIB, seed=104)
    with serve(echo) as server, connect(server) as client, sending(client, [sent]):
        assert Whole(sent) == Whole(read_to_end(client))


def test_one_large_write() -> None:
    """One write of eight MiB is sent whole, although the socket takes it in parts."""
    body = noise(8 * MIB, seed=93)

    async def handler(conn: ioxide.Connection) -> None:
        conn.write(body)

    with serve(handler) as server, connect(server, rcvbuf=4096) as client:
        assert Whole(body) == Whole(read_to_end(client))


def test_pipelined_requests() -> None:
    """Many requests in one segment are answered in order."""
    count = 500

    async def handler(conn: ioxide.Connection) -> None:
        rest = b""
        while data := await conn.recv():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                conn.write(b"<" + line + b">")

    requests = b"".join(b"%d\n" % number for number in range(count))
    answers = b"".join(b"<%d>" % number for number in range(count))
    with serve(handler) as server, connect(server) as client:
        client.sendall(requests)
        assert answers == read_exactly(client, len(answers))
        # One SEND for each batch, not for each write.
        assert server.stats().sends < count


def test_recv_limit_keeps_the_rest() -> None:
    """recv(limit) returns at most that many bytes, and the next call the ones after them."""
    parts: list[bytes] = []

    async def handler(conn: ioxide.Connection) -> None:
        while data := await conn.recv(3):
            parts.append(data)

    with serve(handler) as server, connect(server) as client:
        client.sendall(b"abcdefgh")
        client.shutdown(socket.SHUT_WR)
        assert b"" == read_to_end(client)

    assert b"abcdefgh" == b"".join(parts)
    assert all(1 <= len(part) <= 3 for part in parts)


@pytest.mark.parametrize("limit", [0, -1])
def test_recv_limit_must_be_positive(limit: int) -> None:
    """A limit below one byte is refused by value."""
    errors: list[str] = []

    async def handler(conn: ioxide.Connection) -> None:
        with pytest.raises(ValueError, match=f"not {limit}") as caught:
            await conn.recv(limit)
        errors.append(str(caught.value))

    with serve(handler) as server, connect(server) as client:
        assert b"" == read_to_end(client)
    assert 1 == len(errors)


def test_writes_of_one_batch_leave_in_one_send() -> None:
    """A hundred writes without an await between them are one SEND."""

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv()
        for _ in range(100):
            conn.write(b"x")

    with serve(handler) as server, connect(server) as client:
        client.sendall(b"go")
        assert b"x" * 100 == read_to_end(client)
        assert 1 == server.stats().sends


def test_write_limit_is_backpressure() -> None:
    """Beyond write_limit write() raises BufferError, naming the limit; flush() makes room again."""
    outcome: list[str] = []

    async def handler(conn: ioxide.Connection) -> None:
        conn.write(b"a" * 65536)
        with pytest.raises(BufferError, match="write_limit is 65536 bytes") as caught:
            conn.write(b"b")
        outcome.append(str(caught.value))
        await conn.flush()
        conn.write(b"c" * 65536)

    with serve(handler, write_limit=65536) as server, connect(server) as client:
        assert b"a" * 65536 + b"c" * 65536 == read_to_end(client)
    assert 1 == len(outcome)


def test_writes_during_a_flush_are_accepted() -> None:
    """While one half of the buffer is on its way, the other takes writes; order is kept."""
    first, second = b"1" * (8 * MIB), b"2" * MIB
    written = threading.Event()
    in_flight: list[int] = []

    async def handler(conn: ioxide.Connection) -> None:
        conn.write(bytearray(first))  # copied: bytes would be sent from where they are
        flush = conn.flush()  # for `first` alone
        await asyncio.sleep(0.001)  # at least one tick: the SEND has been submitted
        in_flight.append(conn.unsent)
        conn.write(bytearray(second))
        written.set()
        await flush
        assert conn.unsent <= len(second)

    with serve(handler) as server, connect(server, rcvbuf=4096) as client:
        assert written.wait(TIMEOUT)  # nothing was read until now: more than any socket holds
        data = read_to_end(client)
        assert 0 == server.stats().handler_faults
        assert 2 <= server.stats().sends
    assert [len(first)] == in_flight
    assert Whole(first + second) == Whole(data)
