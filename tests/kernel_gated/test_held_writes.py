# SPDX-License-Identifier: MIT
"""Large `bytes` are sent from where they are: kept alive until their send has completed, no longer.

Whatever can be changed after `write()` is copied, and so is what is small.
"""

from __future__ import annotations

import array
import asyncio
import gc
import io
import mmap
import socket
import struct
import sys
import threading
import time
import warnings
from collections.abc import Awaitable, Callable

import pytest

import ioxide
from tests import support
from tests.faces import Face, Stream
from tests.kernel_gated.ways import ZC, Way, by_face, by_write, by_write_and_face, served
from tests.support import (
    MIB,
    NARROW,
    SMALL,
    TIMEOUT,
    CutError,
    Whole,
    connect,
    noise,
    read_exactly,
    read_to_end,
    until,
    widen,
)
from tests.transports import Recorder, pair, run, the_loop
from tests.transports import until as until_here

HELD = 32 << 10
"""IOX_HOLD_FROM in send.h."""


class Bytes(bytes):
    """No exact bytes: it may have attributes, and a finalizer."""


@by_write_and_face
def test_mixed_writes_arrive_as_they_were_written(way: Way, face: Face) -> None:
    """In order, copied and held, in one batch; what changes after write() was copied."""
    large = noise(5 * HELD + 7, seed=1)
    mapped = mmap.mmap(-1, 2 * HELD)
    mapped[:] = large[: 2 * HELD]
    mutable = [
        bytearray(large),
        memoryview(bytearray(large)),
        memoryview(bytearray(large)).toreadonly(),
        memoryview(array.array("B", large)).toreadonly(),
        io.BytesIO(large).getbuffer(),
        memoryview(mapped),
        memoryview(mapped).toreadonly(),
    ]
    held = [
        large,
        memoryview(large),
        memoryview(large)[3 : HELD + 3],
        memoryview(large[: 4 * HELD]).cast("Q"),
        memoryview(memoryview(large))[HELD:],
    ]
    copied = [b"small", Bytes(large), memoryview(large)[: HELD - 1], large[: HELD - 1]]
    written: list[bytes] = []

    def overwrite(data: bytearray | memoryview) -> None:
        view = memoryview(data)
        if not view.readonly:
            view.cast("B")[:] = bytes(view.nbytes)
        elif isinstance(view.obj, mmap.mmap):
            view.obj[:] = bytes(len(view.obj))
        else:
            memoryview(view.obj)[:] = bytes(view.nbytes)

    async def handler(stream: Stream) -> None:
        await stream.recv(1)
        for number, data in enumerate([*held, *mutable, *copied, *held]):
            for piece in (b"%d:" % number, data):
                written.append(bytes(piece))
                stream.write(piece)  # type: ignore[arg-type]
        for each in mutable:
            overwrite(each)  # type: ignore[arg-type]

    with served(face, way, handler, write_limit=64 * MIB) as server, connect(server) as client:
        client.sendall(b"x")
        got = read_to_end(client)
        assert Whole(b"".join(written)) == Whole(got), (
            "it was lost, moved, or changed after write()"
        )
        assert 2 * len(held) == server.stats().writes_held
        until(lambda: server.stats().held_bytes_now == 0, "everything let go of")


def test_one_batch_is_one_submission() -> None:
    """What a handler writes between two ticks leaves in one message, however many pieces it has."""
    large = noise(HELD, seed=2)

    async def handler(conn: ioxide.Connection) -> None:
        while await conn.recv(1):
            for _ in range(4):
                conn.write(b"head")
                conn.write(large)

    with support.serve(handler) as server, connect(server) as client:
        client.sendall(b"x")
        assert Whole((b"head" + large) * 4) == Whole(read_exactly(client, 4 * (HELD + 4)))
        stats = server.stats()
        assert (4, 1) == (stats.writes_held, stats.sends_vectored)
        assert 1 == stats.sends - stats.partial_sends


@by_write_and_face
def test_held_bytes_live_until_they_are_sent(way: Way, face: Face) -> None:
    """One reference from write() to the completion, of a send that a closed window holds up."""
    body = noise(8 * MIB, seed=3)
    references = sys.getrefcount(body)

    async def handler(stream: Stream) -> None:
        while await stream.recv(1):
            stream.write(b"head")
            stream.write(body)
            stream.write(memoryview(body)[: 4 * HELD])  # type: ignore[arg-type]

    with served(face, way, handler) as server, connect(server, rcvbuf=NARROW) as client:
        client.sendall(b"x")
        until(lambda: server.stats().sends >= 1, "the send")
        time.sleep(0.1)
        assert references + 2 == sys.getrefcount(body), "not held while it is sent"
        assert len(body) + 4 * HELD == server.stats().held_bytes_now
        widen(client)
        size = 4 + len(body) + 4 * HELD
        assert Whole(b"head" + body + body[: 4 * HELD]) == Whole(read_exactly(client, size))
        until(lambda: sys.getrefcount(body) == references, "the reference dropped")
        assert 0 == server.stats().held_bytes_now


@by_write_and_face
def test_freed_memory_is_never_sent(way: Way, face: Face) -> None:
    """Nobody but the connection has the bytes, and memory of their size is taken and filled."""
    sizes = [HELD, 100_000, 3 * MIB, HELD + 1, MIB]
    wanted = b"".join(noise(size, seed=size) for size in sizes)
    fill: list[bytes] = []

    async def handler(stream: Stream) -> None:
        await stream.recv(1)
        for size in sizes:
            stream.write(noise(size, seed=size))
        await asyncio.sleep(0.02)  # submitted; the peer's window holds it up
        for _ in range(8):
            fill.extend(b"\xee" * size for size in sizes)

    with served(face, way, handler) as server, connect(server, rcvbuf=NARROW) as client:
        client.sendall(b"x")
        until(lambda: len(fill) == 8 * len(sizes), "the fill")
        assert Whole(wanted) == Whole(read_to_end(client)), "bytes of somebody else"


async def _aborts(stream: Stream) -> None:
    await stream.recv(1)
    stream.abort()


async def _ends(stream: Stream) -> None:
    await stream.recv(1)


async def _waits(stream: Stream) -> None:
    await stream.recv(1)
    await asyncio.sleep(TIMEOUT)


def _more(client: socket.socket) -> None:
    client.sendall(b"y")


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize(
    ("then", "act", "whole"),
    [
        pytest.param(_aborts, _more, False, id="abort"),
        pytest.param(_ends, _more, True, id="close"),
        pytest.param(_ends, _reset, None, id="reset"),
        pytest.param(_waits, None, None, id="stop"),
    ],
)
@by_write_and_face
def test_an_end_lets_go(
    way: Way,
    face: Face,
    then: Callable[[Stream], Awaitable[None]],
    act: Callable[[socket.socket], None] | None,
    whole: bool | None,
) -> None:
    """Whatever ends the connection in the middle of a send, its bytes are held and then freed."""
    body, staged = noise(8 * MIB, seed=4), noise(MIB, seed=5)
    references = sys.getrefcount(body), sys.getrefcount(staged)
    written: list[int] = []

    async def handler(stream: Stream) -> None:
        await stream.recv(1)
        stream.write(body)
        await asyncio.sleep(0.02)
        stream.write(staged)  # waits behind the send in flight
        written.append(sys.getrefcount(body))
        await then(stream)

    plain = Way(way.changes)  # cut off, a zero-copy send may not have taken anything
    with (
        served(face, plain, handler, stop_timeout_ms=200) as server,
        connect(server, rcvbuf=NARROW) as client,
    ):
        client.sendall(b"x")
        until(lambda: len(written) == 1, "the writes")
        assert references[0] + 1 == sys.getrefcount(body), "not held while it is sent"
        assert references[1] + 1 == sys.getrefcount(staged), "not held while it waits"
        if act is not None:
            act(client)
            if whole is not None:
                data = bytearray()
                widen(client)
                try:
                    while part := client.recv(MIB):
                        data += part
                except CutError:
                    assert not whole
                assert Whole((body + staged)[: len(data)]) == Whole(data)
                assert whole == (len(data) == len(body) + len(staged))
                client.close()
            until(lambda: server.stats().connections_now == 0, "the connection's end")
            assert references == (sys.getrefcount(body), sys.getrefcount(staged)), "leaked"
    assert references == (sys.getrefcount(body), sys.getrefcount(staged)), "leaked"
    assert (0, 0) == (server.stats().held_bytes_now, server.stats().writes_leaked)


@pytest.mark.needs("SEND_ZC")
@by_face
def test_the_notification_lets_go(face: Face) -> None:
    """All bytes were taken, but the kernel still reads them: they are held until it says so."""
    body = noise(8 * HELD, seed=6)  # the socket's buffer takes it whole
    references = sys.getrefcount(body)
    flushed = threading.Event()

    async def handler(stream: Stream) -> None:
        await stream.recv(1)
        stream.write(body)
        await stream.flush()
        flushed.set()
        await stream.recv(1)

    with served(face, ZC, handler) as server, connect(server, rcvbuf=NARROW) as client:
        client.sendall(b"x")
        assert flushed.wait(TIMEOUT)
        stats = server.stats()
        assert (1, 0, len(body)) == (stats.sends_zc, stats.zc_notifs, stats.bytes_sent)
        assert references + 1 == sys.getrefcount(body), "let go of with the result"
        widen(client)
        assert Whole(body) == Whole(read_exactly(client, len(body)))
        until(lambda: sys.getrefcount(body) == references, "the reference dropped")
        assert 1 == server.stats().zc_notifs


@by_write
def test_held_bytes_count_for_the_write_limit(way: Way) -> None:
    """write() refuses what is beyond write_limit, staged or in flight, and unsent tells of it."""
    body, limit = noise(MIB, seed=7), MIB + 100
    told: list[tuple[int, int]] = []
    refused: list[bool] = []
    over = threading.Event()

    def refuse(conn: ioxide.Connection, data: bytes) -> None:
        try:
            conn.write(data)
        except BufferError as error:
            refused.append("write_limit" in str(error))
        else:
            refused.append(False)

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv(1)
        conn.write(body)
        told.append((len(body), conn.unsent))
        refuse(conn, b"x" * 101)
        refuse(conn, body)
        conn.write(b"x" * 100)
        refuse(conn, b"x")
        told.append((limit, conn.unsent))
        await conn.flush()
        told.append((0, conn.unsent))
        conn.write(body)
        await conn.flush()
        over.set()

    with support.serve(handler, write_limit=limit, **way.changes) as server:
        with connect(server) as client:
            client.sendall(b"x")
            expected = body + b"x" * 100 + body
            until(lambda: len(refused) == 3, "three more writes")
            assert all(refused), f"not refused: {refused}"
            assert Whole(expected) == Whole(read_exactly(client, len(expected)))
            assert over.wait(TIMEOUT)
        assert 0 == server.stats().handler_faults
    assert all(expected == got for expected, got in told), told


@by_write
def test_held_bytes_pause_the_protocol(way: Way) -> None:
    """pause_writing() comes with the write, resume_writing() when the peer has taken it."""
    body = noise(8 * MIB, seed=8)

    async def main() -> None:
        references = sys.getrefcount(body)
        protocol = Recorder()
        async with pair(protocol, rcvbuf=NARROW) as peer:
            protocol.transport.write(b"head")
            protocol.transport.write(body)
            assert ["made", "pause"] == protocol.calls
            assert len(body) + 4 == protocol.transport.get_write_buffer_size()
            await asyncio.sleep(0.1)
            assert references + 1 == sys.getrefcount(body)
            widen(peer.sock)
            assert Whole(b"head" + body) == Whole(await peer.read(len(body) + 4))
            await until_here(lambda: "resume" in protocol.calls, "resume_writing()")
            await until_here(lambda: sys.getrefcount(body) == references, "the reference dropped")
            assert 1 == the_loop().driver.counters().writes_held

    run(main(), **way.changes)


@by_write
def test_writelines_and_drain(way: Way) -> None:
    """writelines() of mixed pieces is one write; drain() of a StreamWriter waits for it."""
    large = noise(MIB, seed=9)
    pieces: list[bytes | bytearray | memoryview] = [
        b"a",
        large,
        memoryview(large)[5:],
        bytearray(large),
        b"z",
    ]
    expected = b"".join(pieces)

    async def main() -> ioxide.Counters:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.writelines(pieces)
            await writer.drain()
            writer.write(large)
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x")
            assert Whole(expected + large) == Whole(await reader.read(-1))
            writer.close()
            await writer.wait_closed()
        await until_here(lambda: the_loop().driver.counters().closes == 2, "both ends")
        return the_loop().driver.counters()

    stats = run(main(), **way.changes)
    assert (2, 0) == (stats.writes_held, stats.held_bytes_now)


@pytest.mark.parametrize("mode", list(ioxide.ContinuationMode))
def test_writes_of_other_threads(mode: ioxide.ContinuationMode) -> None:
    """write() on a worker, and write_threadsafe(), hold the bytes as well, in the calls' order."""
    body = noise(2 * MIB, seed=10)
    references = sys.getrefcount(body)

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv(1)
        conn.write(b"head")
        conn.write(body)
        conn.write(memoryview(body)[1:])

        def elsewhere() -> None:
            conn.write_threadsafe(b"tail")
            conn.write_threadsafe(body)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        await conn.flush()

    expected = b"head" + body + body[1:] + b"tail" + body
    with support.serve(handler, continuation_mode=mode) as server, connect(server) as client:
        client.sendall(b"x")
        assert Whole(expected) == Whole(read_to_end(client))
        stats = server.stats()
        assert (3, 0) == (stats.writes_held, stats.handler_faults)
        until(lambda: sys.getrefcount(body) == references, "the reference dropped")


@by_write
def test_bytes_of_a_ring_that_ends_elsewhere_are_leaked(way: Way) -> None:
    """A loop closed on another thread cannot wait for its sends: what they read is never freed."""
    flying, waiting = noise(8 * MIB, seed=11), noise(MIB, seed=12)
    references = sys.getrefcount(flying), sys.getrefcount(waiting)
    loop = ioxide.new_event_loop(SMALL.replace(**way.changes))
    peers: list[socket.socket] = []

    async def main() -> None:
        protocol = Recorder()
        server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW)
        peers.append(peer)
        await asyncio.to_thread(peer.connect, server.sockets[0].getsockname())
        await until_here(lambda: protocol.calls, "connection_made()")
        protocol.transport.write(flying)
        await asyncio.sleep(0.05)
        protocol.transport.write(waiting)
        server.close()

    def elsewhere() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(main())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert [1, 1] == [
        sys.getrefcount(flying) - references[0],
        sys.getrefcount(waiting) - references[1],
    ]
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # unclosed transport
        del loop._transports  # type: ignore[attr-defined]
        gc.collect()
    peers[0].close()
    stats = loop.driver.counters()
    kept = sys.getrefcount(flying) == references[0] + 1
    assert (1, True) == (stats.writes_leaked, kept), "freed while the kernel might still read it"
    assert references[1] == sys.getrefcount(waiting), "no send has ever read it"
    assert (len(flying), 0) == (stats.held_bytes_now, stats.memory_faults)
