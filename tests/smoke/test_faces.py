# SPDX-License-Identifier: MIT
"""What the connection core guarantees, through both faces: handlers and asyncio transports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import struct
import threading

import pytest

from tests.faces import FACES, Face, Stream, echo, serve, wait_paused
from tests.support import (
    MIB,
    TIMEOUT,
    Whole,
    connect,
    noise,
    on_reactor,
    open_fds,
    pieces,
    read_exactly,
    read_to_end,
    sending,
    until,
    wait_fds,
    wait_unread,
)

pytestmark = pytest.mark.parametrize("face", FACES)


def test_random_pieces_come_back_in_order(face: Face) -> None:
    """1 MiB in random pieces comes back byte for byte, with the end of the stream behind it."""
    rng = random.Random(92)
    sent = noise(MIB, seed=92)
    with serve(face, echo) as server, connect(server) as client:
        with sending(client, pieces(rng, sent)):
            assert Whole(sent) == Whole(read_to_end(client))
        until(lambda: server.stats().connections_now == 0, "the end of the connection")
        assert (MIB, MIB) == (server.stats().bytes_received, server.stats().bytes_sent)
        assert 0 == server.stats().buffers_held_now


@pytest.mark.issue(93)
def test_no_buffer_left_stalls_and_goes_on(face: Face) -> None:
    """Four buffers of 64 bytes for a flood on two connections: both stall, neither loses a byte."""
    sent = [random.Random(number).randbytes(32768) for number in range(2)]
    with (
        serve(face, echo, recv_slots=4, recv_buffer_size=64) as server,
        connect(server) as one,
        connect(server) as other,
    ):
        senders = [
            threading.Thread(target=client.sendall, args=(data,))
            for client, data in zip((one, other), sent, strict=True)
        ]
        for sender in senders:
            sender.start()
        for client, data in zip((one, other), sent, strict=True):
            assert Whole(data) == Whole(read_exactly(client, len(data)))
        for sender in senders:
            sender.join(TIMEOUT)
        assert server.stats().recv_enobufs >= 1
        assert 2 == server.stats().connections_now


@pytest.mark.issue(95)
def test_a_full_completion_queue_loses_nothing(face: Face) -> None:
    """4 KiB in buffers of 64 bytes overflow 8 completions; all of it comes back."""
    streams: list[Stream] = []
    sent = random.Random(95).randbytes(4096)

    async def handler(stream: Stream) -> None:
        streams.append(stream)
        await echo(stream)

    with (
        serve(
            face, handler, ring_entries=4, cq_entries=8, recv_slots=256, recv_buffer_size=64
        ) as server,
        connect(server) as client,
    ):
        client.sendall(b"first")
        assert b"first" == read_exactly(client, 5)

        def flood() -> None:
            client.sendall(sent)
            wait_unread(streams[0].fileno(), len(sent))

        on_reactor(server.reactors[0], flood)
        assert sent == read_exactly(client, len(sent))
        assert server.stats().cq_overflow_events >= 1


def test_half_close_ends_reads_only(face: Face) -> None:
    """After the peer's FIN the answer still goes out, however large."""
    answer = noise(4 * MIB, seed=3)

    async def handler(stream: Stream) -> None:
        while await stream.recv():
            pass
        stream.write(answer)
        await stream.flush()

    with serve(face, handler) as server, connect(server) as client:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert Whole(answer) == Whole(read_to_end(client))


def test_a_reset_reaches_the_reader_and_nobody_else(face: Face) -> None:
    """A peer's RST ends the parked read with ConnectionResetError; others are served on."""
    ends: list[BaseException | bytes] = []

    async def handler(stream: Stream) -> None:
        stream.write(await stream.recv())
        try:
            ends.append(await stream.recv())
        except OSError as error:
            ends.append(error)

    before = open_fds()
    with serve(face, handler) as server:
        with connect(server) as leaver, connect(server) as other:
            leaver.sendall(b"hello")
            assert b"hello" == read_exactly(leaver, 5)
            leaver.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            leaver.close()
            until(lambda: len(ends) == 1, "the end of the one that was reset")
            assert isinstance(ends[0], ConnectionResetError)
            other.sendall(b"still")
            assert b"still" == read_exactly(other, 5)
        until(lambda: server.stats().connections_now == 0, "the end of both")
    wait_fds(before)


def test_descriptors_are_used_again_and_bytes_stay_apart(face: Face) -> None:
    """Two hundred connections over a few descriptors: each gets its own bytes."""
    seen: list[int] = []

    async def handler(stream: Stream) -> None:
        seen.append(stream.fileno())
        await echo(stream)

    with serve(face, handler) as server:
        for number in range(200):
            with connect(server) as client:
                client.sendall(b"client %03d" % number)
                assert b"client %03d" % number == read_exactly(client, 10)
        assert 200 == server.stats().accepts
    assert len(set(seen)) < 100
    stats = server.stats()
    assert (200, 0) == (stats.closes, stats.connections_now)


def test_a_large_write_reaches_a_slow_reader_whole(face: Face) -> None:
    """8 MiB written at once to a peer with a small window arrive whole, and then the end."""
    data = noise(8 * MIB, seed=4)
    written = threading.Event()

    async def handler(stream: Stream) -> None:
        stream.write(data)
        written.set()
        await stream.flush()

    with serve(face, handler) as server, connect(server, rcvbuf=4096) as client:
        assert written.wait(TIMEOUT)
        until(lambda: server.stats().sends == 1, "a SEND behind a closed window")
        assert 0 == server.stats().bytes_sent
        assert Whole(data) == Whole(read_to_end(client))


def test_close_sends_what_was_written(face: Face) -> None:
    """Bytes that wait when the connection is closed still leave, and FIN after them."""
    data = noise(8 * MIB, seed=5)
    closed = threading.Event()

    async def handler(stream: Stream) -> None:
        stream.write(data)
        stream.close()
        closed.set()

    with serve(face, handler) as server, connect(server, rcvbuf=4096) as client:
        assert closed.wait(TIMEOUT)
        until(lambda: server.stats().sends == 1, "a SEND behind a closed window")
        assert Whole(data) == Whole(read_to_end(client))


def test_abort_resets_when_bytes_were_cut_off(face: Face) -> None:
    """A peer that has not got everything sees a reset, not the end of a whole stream."""
    aborted = threading.Event()

    async def handler(stream: Stream) -> None:
        stream.write(b"z" * (8 * MIB))
        await stream.recv()
        stream.abort()
        aborted.set()

    with serve(face, handler) as server, connect(server, rcvbuf=4096) as client:
        until(lambda: server.stats().sends == 1, "a SEND behind a closed window")
        client.sendall(b"enough")
        assert aborted.wait(TIMEOUT)
        until(lambda: server.stats().connections_now == 0, "the end of the connection")
        with pytest.raises(ConnectionResetError):
            read_to_end(client)
        assert 1 == server.stats().aborts


def test_linger_of_zero_makes_close_a_reset(face: Face) -> None:
    """SO_LINGER at 0 is how a program asks for a reset; all that was sent before has been read."""

    async def handler(stream: Stream) -> None:
        stream.write(b"half")
        await stream.recv()
        with socket.socket(fileno=os.dup(stream.fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()

    with serve(face, handler) as server, connect(server) as client:
        assert b"half" == read_exactly(client, 4)
        client.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            read_to_end(client)


def test_a_reader_that_pauses_loses_no_byte(face: Face) -> None:
    """While nobody reads little is received, and afterwards every byte, in order."""
    sent = noise(8 * MIB, seed=6)
    go = threading.Event()
    got: list[bytes] = []

    async def handler(stream: Stream) -> None:
        got.append(await stream.recv(1))
        while not go.is_set():
            await asyncio.sleep(0.005)
        while data := await stream.recv():
            got.append(data)

    with (
        serve(face, handler, recv_queue_entries=4) as server,
        connect(server) as client,
        sending(client, [sent], sndbuf=MIB // 4) as sender,
    ):
        until(lambda: len(got) == 1, "the first byte")
        assert wait_paused(server) < MIB
        assert sender.is_alive()
        go.set()
        assert b"" == read_to_end(client)
        assert Whole(sent) == Whole(b"".join(got))


def test_a_cancelled_reader_loses_no_byte(face: Face) -> None:
    """A recv() that wait_for() gives up again and again loses nothing of what comes meanwhile."""
    sent = random.Random(7).randbytes(4096)
    cancelled: list[int] = []

    async def handler(stream: Stream) -> None:
        while True:
            try:
                data = await asyncio.wait_for(_recv(stream), 0.002)
            except TimeoutError:
                cancelled.append(1)
                continue
            if not data:
                break
            stream.write(data)
            await stream.flush()

    async def _recv(stream: Stream) -> bytes:
        return await stream.recv(7)

    with serve(face, handler) as server, connect(server) as client:
        got = bytearray()
        for at in range(0, len(sent), 512):
            enough = len(cancelled) + 3
            until(lambda: len(cancelled) >= enough, "reads that were given up")  # noqa: B023
            client.sendall(sent[at : at + 512])
            got += read_exactly(client, 512)
        assert Whole(sent) == Whole(bytes(got))
        client.shutdown(socket.SHUT_WR)
        assert b"" == read_to_end(client)


def test_stop_with_open_connections_leaves_nothing(face: Face) -> None:
    """Connections in every state when the server stops: their descriptors come back."""
    before = open_fds()

    async def handler(stream: Stream) -> None:
        first = await stream.recv()
        if first == b"write":
            stream.write(b"z" * (8 * MIB))
        await stream.recv()

    with contextlib.ExitStack() as stack:
        with serve(face, handler, stop_timeout_ms=200) as server:
            clients = [stack.enter_context(connect(server, rcvbuf=4096)) for _ in range(6)]
            for client in clients[:2]:
                client.sendall(b"write")
            for client in clients[2:4]:
                client.sendall(b"read")
            until(lambda: server.stats().accepts == 6, "six connections")
            until(lambda: server.stats().sends >= 2, "two SENDs behind closed windows")
        stats = server.stats()
        assert (6, 0) == (stats.closes, stats.connections_now)
    wait_fds(before)
