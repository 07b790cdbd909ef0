# SPDX-License-Identifier: MIT
"""What tests/smoke/test_faces.py asks of the shared way, asked of every other way to move bytes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading

import pytest

import ioxide
from tests.faces import Face, Stream, echo, wait_paused
from tests.kernel_gated.ways import (
    INC,
    INCREMENTAL,
    SLAB,
    Streams,
    Way,
    by_face,
    by_receive_and_face,
    by_send_and_face,
    by_way_and_face,
    served,
)
from tests.support import (
    MIB,
    NARROW,
    TIMEOUT,
    CutError,
    Whole,
    connect,
    noise,
    open_fds,
    read_exactly,
    read_to_end,
    sending,
    until,
    wait_fds,
)

pytestmark = pytest.mark.kernel_gated


@by_way_and_face
def test_random_pieces_come_back_in_order(face: Face, way: Way) -> None:
    """1 MiB in random pieces comes back byte for byte, with the end of the stream behind it."""
    rng = random.Random(92)
    first, sent = rng.randbytes(3 * SLAB - 100), noise(MIB, seed=92)
    streams = Streams()
    with served(face, way, streams.of(echo)) as server, connect(server) as client:
        streams.echoed(server, client, rng, first, sent)


@by_face
@pytest.mark.needs("INC")
@pytest.mark.issue(93)
def test_no_buffer_left_stalls_and_goes_on(face: Face) -> None:
    """Four buffers of 64 bytes for 32 KiB: the receive stalls, goes on and loses no byte."""
    few = ioxide.IncrementalConfig(max_connections=8, recv_slots=4, recv_buffer_size=64)
    streams = Streams()
    with (
        served(face, INC, streams.of(echo), incremental=few) as server,
        connect(server) as client,
    ):
        for number, size in enumerate((5, 32768, 9, 4096)):
            sent = noise(size, seed=number)
            streams.deliver(server, client, sent)
            assert Whole(sent) == Whole(read_exactly(client, size))
        assert server.stats().recv_enobufs >= 1


@by_receive_and_face
def test_a_reader_that_pauses_loses_no_byte(face: Face, way: Way) -> None:
    """While nobody reads little is received, and afterwards every byte, in order."""
    first, sent = b"first", noise(8 * MIB, seed=6)
    go = threading.Event()
    got: list[bytes] = []

    async def handler(stream: Stream) -> None:
        while len(got) < 2:
            got.append(await stream.recv())
        while not go.is_set():
            await asyncio.sleep(0.005)
        while data := await stream.recv():
            got.append(data)

    streams = Streams()
    with served(face, way, streams.of(handler), recv_queue_entries=4) as server:
        with connect(server) as client:
            streams.deliver(server, client, first)
            until(lambda: len(got) == 1, "the first bytes")
            with sending(client, [sent], sndbuf=MIB // 4) as sender:
                until(lambda: len(got) == 2, "more of them")
                assert wait_paused(server) < MIB
                assert sender.is_alive()
                go.set()
                assert b"" == read_to_end(client)
                assert Whole(first + sent) == Whole(b"".join(got))


@by_way_and_face
def test_half_close_ends_reads_only(face: Face, way: Way) -> None:
    """After the peer's FIN the answer still goes out, however large."""
    question = random.Random(2).randbytes(3000)
    answer = noise(2 * MIB, seed=3)
    asked: list[bytes] = []

    async def handler(stream: Stream) -> None:
        while data := await stream.recv():
            asked.append(data)
        stream.write(answer)
        await stream.flush()

    streams = Streams()
    with served(face, way, streams.of(handler)) as server, connect(server) as client:
        for part in (1, 2):
            streams.deliver(server, client, question)
            until(lambda n=part: server.stats().bytes_received == n * 3000, "the question")  # type: ignore[misc]
        client.shutdown(socket.SHUT_WR)
        assert Whole(answer) == Whole(read_to_end(client))
        assert Whole(2 * question) == Whole(b"".join(asked))


@by_receive_and_face
def test_a_reset_reaches_the_reader_and_nobody_else(face: Face, way: Way) -> None:
    """A peer's RST ends the parked read with ConnectionResetError; others are served on."""
    ends: list[BaseException | bytes] = []

    async def handler(stream: Stream) -> None:
        try:
            while data := await stream.recv():
                stream.write(data)
                await stream.flush()
        except OSError as error:
            ends.append(error)

    streams = Streams()
    with served(face, way, streams.of(handler)) as server:
        with connect(server) as other:
            streams.deliver(server, other, b"hello")
            assert b"hello" == read_exactly(other, 5)
            with connect(server) as leaver:
                for _ in range(2):
                    streams.deliver(server, leaver, b"x" * 3000)
                    assert 3000 == len(read_exactly(leaver, 3000))
                leaver.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            until(lambda: len(ends) == 1, "the end of the one that was reset")
            assert isinstance(ends[0], ConnectionResetError)
            until(lambda: server.stats().connections_now == 1, "the end of the connection")
            if "incremental" in way.changes:
                assert INCREMENTAL.max_connections - 1 == server.stats().groups_free_now
            other.sendall(b"still")
            assert b"still" == read_exactly(other, 5)


@by_send_and_face
@pytest.mark.parametrize("last", ["flush", "close"])
def test_a_large_write_reaches_a_slow_reader_whole(face: Face, way: Way, last: str) -> None:
    """8 MiB that a small window holds up arrive whole, and FIN after them, also after close()."""
    data = noise(8 * MIB, seed=4)
    written = threading.Event()

    async def handler(stream: Stream) -> None:
        stream.write(data)
        if last == "close":
            stream.close()
        written.set()
        if last == "flush":
            await stream.flush()

    with served(face, way, handler) as server:
        with connect(server, rcvbuf=NARROW) as client:
            assert written.wait(TIMEOUT)
            until(lambda: server.stats().sends >= 1, "a SEND behind a closed window")
            assert server.stats().bytes_sent < len(data)
            assert Whole(data) == Whole(read_to_end(client))
        until(lambda: server.stats().connections_now == 0, "the end of the connection")
        assert len(data) == server.stats().bytes_sent


@by_send_and_face
def test_abort_resets_when_bytes_were_cut_off(face: Face, way: Way) -> None:
    """A peer that has not got everything sees a reset, and the kernel lets go of the memory."""
    aborted = threading.Event()

    async def handler(stream: Stream) -> None:
        stream.write(b"z" * (8 * MIB))
        await stream.recv()
        stream.abort()
        aborted.set()

    with served(face, way, handler) as server, connect(server, rcvbuf=4096) as client:
        until(lambda: server.stats().sends >= 1, "a SEND behind a closed window")
        client.sendall(b"enough")
        assert aborted.wait(TIMEOUT)
        until(lambda: server.stats().connections_now == 0, "the end of the connection")
        with pytest.raises(CutError):
            read_to_end(client)
        assert 1 == server.stats().aborts


@by_way_and_face
def test_stop_with_open_connections_leaves_nothing(face: Face, way: Way) -> None:
    """Connections in every state when the server stops: buffers, ids and descriptors come back."""

    async def handler(stream: Stream) -> None:
        if await stream.recv(5) == b"write":
            stream.write(b"z" * (8 * MIB))
        await stream.recv(1)
        await asyncio.Event().wait()

    streams = Streams()
    before = open_fds()
    with contextlib.ExitStack() as stack:
        with served(face, way, streams.of(handler), stop_timeout_ms=200) as server:
            received = 0
            for first in (b"write", b"write", b"reads", b"reads", b"", b""):
                client = stack.enter_context(connect(server, rcvbuf=4096))
                for data in (first, b"x" * 3000) if first else ():
                    streams.deliver(server, client, data)
                    received += len(data)
                    until(
                        lambda n=received: server.stats().bytes_received == n,  # type: ignore[misc]
                        "the bytes",
                    )
            until(lambda: server.stats().accepts == 6, "six connections")
            until(lambda: server.stats().sends >= 2, "two SENDs behind closed windows")
            assert 6 == server.stats().connections_now
            if face is Face.HANDLER:
                assert server.stats().buffers_held_now > 0, "nothing was left unread"
        assert (6, 6) == (server.stats().accepts, server.stats().closes)
        wait_fds(before + 6)  # the clients'
