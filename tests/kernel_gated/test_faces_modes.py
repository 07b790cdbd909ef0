# SPDX-License-Identifier: MIT
"""What tests/smoke/test_faces.py asks of the shared way, asked of every other way to move bytes.

Each test says which counters tell that the way was taken; `served()` looks at them, and at
everything that has to be back, when the server has stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

import ioxide
from ioxide import WriteOverflow
from tests import support
from tests.faces import FACES, Face, Handler, Served, Stream, echo, serve
from tests.support import (
    SMALL,
    TIMEOUT,
    CutError,
    connect,
    on_reactor,
    open_fds,
    read_exactly,
    read_to_end,
    until,
    wait_fds,
    wait_unread,
)

pytestmark = pytest.mark.kernel_gated

MIB = 1 << 20
SLAB = 4096
INCREMENTAL = ioxide.IncrementalConfig(max_connections=8, recv_slots=16, recv_buffer_size=1024)


@dataclass(frozen=True)
class Way:
    """A configuration, and the counters that are above 0 only where it was what moved the bytes."""

    changes: dict[str, Any]
    received: tuple[str, ...] = ()
    sent: tuple[str, ...] = ()

    def __or__(self, other: Way) -> Way:
        return Way(
            self.changes | other.changes, self.received + other.received, self.sent + other.sent
        )


_BUNDLE = Way({"recv_bundle": True, "recv_buffer_size": 1024}, received=("recv_bundles",))
_INC = Way({"incremental": INCREMENTAL}, received=("recv_appends",))
_ZC = Way({"zero_copy_send": True}, sent=("sends_zc", "zc_notifs"))
_SEGMENTED = Way(
    {"write_overflow": WriteOverflow.SEGMENTED, "write_slab_size": SLAB}, sent=("sends_vectored",)
)

_bundle, _inc, _zc = (pytest.mark.needs(name) for name in ("BUNDLE", "INC", "SEND_ZC"))

RECEIVES = [
    pytest.param(_BUNDLE, id="bundle", marks=_bundle),
    pytest.param(_INC, id="incremental", marks=_inc),
]
SENDS = [
    pytest.param(_ZC, id="zc", marks=_zc),
    pytest.param(_SEGMENTED, id="segmented"),
    pytest.param(_ZC | _SEGMENTED, id="zc-segmented", marks=_zc),
]
WAYS = [
    *RECEIVES,
    *SENDS,
    pytest.param(_BUNDLE | _ZC | _SEGMENTED, id="bundle-zc-segmented", marks=[_bundle, _zc]),
    pytest.param(_INC | _ZC | _SEGMENTED, id="incremental-zc-segmented", marks=[_inc, _zc]),
]

by_face = pytest.mark.parametrize("face", FACES)
by_receive = pytest.mark.parametrize("way", RECEIVES)
by_send = pytest.mark.parametrize("way", SENDS)
by_way = pytest.mark.parametrize("way", WAYS)


def digest(data: bytes) -> str:
    """So that a failure does not spend minutes on showing how megabytes differ."""
    return hashlib.sha256(data).hexdigest()


def _all_back(stats: ioxide.Counters, config: dict[str, Any]) -> None:
    assert (0, 0) == (stats.connections_now, stats.accepts + stats.adoptions - stats.closes)
    assert 0 == stats.buffers_held_now, "receive buffers that did not come back"
    assert stats.sends_zc == stats.zc_notifs, "sends whose memory the kernel still has"
    if own := config.get("incremental"):
        assert own.max_connections == stats.groups_free_now, "group ids that did not come back"


@contextmanager
def served(face: Face, way: Way, handler: Handler, **changes: object) -> Iterator[Served]:
    """`handler` on a server that moves bytes that way, proves it, and leaves nothing behind."""
    config = {**way.changes, **changes}
    with serve(face, handler, **config) as server:
        yield server
    stats = server.stats()
    for counter in way.received + way.sent:
        assert getattr(stats, counter) > 0, f"{counter}: another way was taken"
    _all_back(stats, config)


class Streams:
    """A handler's streams in the order in which they come; `of()` wraps the handler."""

    def __init__(self) -> None:
        self._streams: list[Stream] = []
        self._clients: list[socket.socket] = []

    def of(self, handler: Handler) -> Handler:
        async def noting(stream: Stream) -> None:
            self._streams.append(stream)
            await handler(stream)

        return noting

    def deliver(self, server: Served, client: socket.socket, data: bytes) -> None:
        """`data` to the stream of `client`, whose reactor finds all of it waiting at once.

        Of several clients each has to come here before the next one connects.
        """
        if client not in self._clients:
            self._clients.append(client)
        number = self._clients.index(client)
        until(lambda: len(self._streams) > number, "the handler's start")

        def block() -> None:
            client.sendall(data)
            wait_unread(self._streams[number].fileno(), len(data))

        on_reactor(server.reactors[0], block)


@by_face
@by_way
def test_random_pieces_come_back_in_order(face: Face, way: Way) -> None:
    """1 MiB in random pieces comes back byte for byte, with the end of the stream behind it."""
    rng = random.Random(92)
    first, sent = rng.randbytes(3 * SLAB - 100), rng.randbytes(MIB)
    streams = Streams()
    with served(face, way, streams.of(echo)) as server, connect(server) as client:
        for _ in range(2):
            streams.deliver(server, client, first)
            assert digest(first) == digest(read_exactly(client, len(first)))

        def send() -> None:
            at = 0
            while at < len(sent):
                step = rng.randint(1, 65536)
                client.sendall(sent[at : at + step])
                at += step
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        assert digest(sent) == digest(read_to_end(client))
        sender.join(TIMEOUT)
        until(lambda: server.stats().connections_now == 0, "the end of the connection")
        stats, total = server.stats(), 2 * len(first) + len(sent)
        assert (total, total) == (stats.bytes_received, stats.bytes_sent)


@by_face
@pytest.mark.needs("INC")
@pytest.mark.issue(93)
def test_no_buffer_left_stalls_and_goes_on(face: Face) -> None:
    """Four buffers of 64 bytes for 32 KiB: the receive stalls, goes on and loses no byte."""
    few = ioxide.IncrementalConfig(max_connections=8, recv_slots=4, recv_buffer_size=64)
    streams = Streams()
    with (
        served(face, _INC, streams.of(echo), incremental=few) as server,
        connect(server) as client,
    ):
        for number, size in enumerate((5, 32768, 9, 4096)):
            sent = random.Random(number).randbytes(size)
            streams.deliver(server, client, sent)
            assert digest(sent) == digest(read_exactly(client, size))
        assert server.stats().recv_enobufs >= 1


@by_face
@by_receive
def test_a_reader_that_pauses_loses_no_byte(face: Face, way: Way) -> None:
    """While nobody reads little is received, and afterwards every byte, in order."""
    first, sent = b"first", random.Random(6).randbytes(8 * MIB)
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

            def send() -> None:
                client.sendall(sent)
                client.shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=send)
            sender.start()
            until(lambda: len(got) == 2, "more of them")
            still = [server.stats().bytes_received]

            def stopped() -> bool:
                threading.Event().wait(0.1)
                still.append(server.stats().bytes_received)
                return len(still) > 4 and len(set(still[-4:])) == 1

            until(stopped, "a receive that has paused")
            assert sender.is_alive()
            assert server.stats().bytes_received < MIB
            go.set()
            sender.join(TIMEOUT)
            assert b"" == read_to_end(client)
            assert digest(first + sent) == digest(b"".join(got))


@by_face
@by_way
def test_half_close_ends_reads_only(face: Face, way: Way) -> None:
    """After the peer's FIN the answer still goes out, however large."""
    question = random.Random(2).randbytes(3000)
    answer = random.Random(3).randbytes(2 * MIB)
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
        assert digest(answer) == digest(read_to_end(client))
        assert digest(2 * question) == digest(b"".join(asked))


@by_face
@by_receive
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


@by_face
@by_send
def test_a_large_write_reaches_a_slow_reader_whole(face: Face, way: Way) -> None:
    """8 MiB written at once to a peer with a small window arrive whole, and then the end."""
    data = random.Random(4).randbytes(8 * MIB)
    written = threading.Event()

    async def handler(stream: Stream) -> None:
        stream.write(data)
        written.set()
        await stream.flush()

    with served(face, way, handler) as server:
        with connect(server, rcvbuf=4096) as client:
            assert written.wait(TIMEOUT)
            until(lambda: server.stats().sends >= 1, "a SEND behind a closed window")
            assert server.stats().bytes_sent < len(data)
            assert digest(data) == digest(read_to_end(client))
        until(lambda: server.stats().connections_now == 0, "the end of the connection")
        assert len(data) == server.stats().bytes_sent


@by_face
@by_send
def test_close_sends_what_was_written(face: Face, way: Way) -> None:
    """Bytes that wait when the connection is closed still leave, and FIN after them."""
    data = random.Random(5).randbytes(8 * MIB)
    closed = threading.Event()

    async def handler(stream: Stream) -> None:
        stream.write(data)
        stream.close()
        closed.set()

    with served(face, way, handler) as server, connect(server, rcvbuf=4096) as client:
        assert closed.wait(TIMEOUT)
        until(lambda: server.stats().sends >= 1, "a SEND behind a closed window")
        assert server.stats().bytes_sent < len(data)
        assert digest(data) == digest(read_to_end(client))


@by_face
@by_send
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


@by_face
@by_way
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


# What only asyncio's face has


class _Sink(asyncio.BufferedProtocol):
    """Takes seven bytes at a time; a full count is told by `done`."""

    def __init__(self, size: int, done: asyncio.Future[bytes]) -> None:
        self._buffer = bytearray(7)
        self._size = size
        self._done = done
        self._data = bytearray()

    def get_buffer(self, _sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, count: int) -> None:
        self._data += self._buffer[:count]
        if len(self._data) == self._size:
            self._done.set_result(bytes(self._data))


def _run(
    main: Callable[[ioxide.Loop], Any], changes: dict[str, Any], counters: tuple[str, ...] = ()
) -> None:
    """`main(loop)` on a loop of its own that is closed afterwards; everything comes back."""
    loop = ioxide.new_event_loop(SMALL.replace(**changes))
    try:
        loop.run_until_complete(asyncio.wait_for(main(loop), TIMEOUT))
    finally:
        loop.close()
    stats = loop.driver.counters()
    for counter in counters:
        assert getattr(stats, counter) > 0, f"{counter}: another way was taken"
    assert 0 == stats.connections_now


@by_receive
def test_a_buffered_protocol_takes_pieces_of_any_buffer(way: Way) -> None:
    """Seven bytes at a time, out of buffers that are filled in several goes: none lost or moved."""
    sent = [random.Random(number).randbytes(size) for number, size in enumerate((10, 3000, 1500))]
    whole = b"".join(sent)

    async def main(loop: ioxide.Loop) -> None:
        done: asyncio.Future[bytes] = loop.create_future()
        server = await loop.create_server(lambda: _Sink(len(whole), done), "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            received = 0
            for data in sent:
                client.sendall(data)  # all at once: the loop does not run meanwhile
                received += len(data)
                while loop.driver.counters().bytes_received < received:
                    await asyncio.sleep(0.001)
            assert digest(whole) == digest(await done)
        server.close()
        while loop.driver.counters().connections_now:
            await asyncio.sleep(0.001)
        _all_back(loop.driver.counters(), way.changes)

    _run(main, way.changes, way.received)


@by_way
def test_a_loop_that_is_closed_leaves_nothing_of_open_transports(way: Way) -> None:
    """close() with connections that read, that send and that are paused gives all of it back."""
    clients: list[socket.socket] = []
    protocols: list[asyncio.Protocol] = []

    class Idle(asyncio.Protocol):
        transport: ioxide.Transport
        seen = 0

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, ioxide.Transport)
            self.transport = transport
            protocols.append(self)

        def data_received(self, data: bytes) -> None:
            self.seen += len(data)

    async def main(loop: ioxide.Loop) -> None:
        server = await loop.create_server(Idle, "127.0.0.1", 0)

        async def received(size: int) -> None:
            while loop.driver.counters().bytes_received < size:
                await asyncio.sleep(0.001)

        for number in range(3):
            client = socket.socket()
            clients.append(client)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(server.sockets[0].getsockname())
            for part in (1, 2):
                client.sendall(b"x" * 3000)
                await received(6000 * number + 3000 * part)
        _reading, sending, paused = protocols
        assert isinstance(sending, Idle)
        assert isinstance(paused, Idle)
        sending.transport.write(b"z" * (8 * MIB))
        paused.transport.pause_reading()
        while not loop.driver.counters().sends:
            await asyncio.sleep(0.001)
        assert 3 == loop.driver.counters().connections_now
        server.close()

    before = open_fds()
    try:
        _run(main, way.changes, way.received + tuple(n for n in way.sent if n != "zc_notifs"))
        protocols.clear()
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            gc.collect()  # they are in cycles, each with its protocol
        wait_fds(before + len(clients))
        for client in clients:
            client.settimeout(TIMEOUT)
            with contextlib.suppress(ConnectionResetError):
                while client.recv(MIB):
                    pass
    finally:
        for client in clients:
            client.close()


@pytest.mark.needs("INC")
@pytest.mark.issue(92)
def test_connections_beyond_the_group_ids_are_shed() -> None:
    """create_server() closes and counts connection 5 of 4; the others live; the ids come back."""
    own = ioxide.IncrementalConfig(max_connections=4, recv_slots=4, recv_buffer_size=1024)
    with serve(Face.TRANSPORT, echo, incremental=own) as server:
        for cycle in range(1, 11):
            with contextlib.ExitStack() as stack:
                held = [stack.enter_context(connect(server)) for _ in range(4)]
                for client in held:
                    client.sendall(b"x")
                    assert b"x" == read_exactly(client, 1)
                for _ in range(3):
                    with connect(server) as extra:
                        assert b"" == extra.recv(1)
                for client in held:
                    client.sendall(b"y")
                    assert b"y" == read_exactly(client, 1)
            until(lambda: server.stats().connections_now == 0, "room for four")
            stats = server.stats()
            assert (4 * cycle, 3 * cycle) == (stats.accepts, stats.accepts_shed)
            assert 4 == stats.groups_free_now


@pytest.mark.needs("INC")
@pytest.mark.issue(92)
def test_a_connection_of_ours_without_a_group_id_stays_with_asyncio() -> None:
    """open_connection() beyond the ids gives asyncio's own transport; with one free, ours again."""
    own = ioxide.IncrementalConfig(max_connections=2, recv_slots=4, recv_buffer_size=1024)
    kinds: list[bool] = []

    async def main(loop: ioxide.Loop) -> None:
        writers: list[asyncio.StreamWriter] = []

        async def ask() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            kinds.append(isinstance(writer.transport, ioxide.Transport))
            writers.append(writer)
            writer.write(b"question")
            assert b"question" == await reader.readexactly(8)

        for _ in range(3):
            await ask()
        assert 0 == loop.driver.counters().groups_free_now
        writers[0].close()
        await writers[0].wait_closed()
        while not loop.driver.counters().groups_free_now:
            await asyncio.sleep(0.001)
        await ask()
        for writer in writers[1:]:
            writer.close()
            await writer.wait_closed()
        while loop.driver.counters().connections_now:
            await asyncio.sleep(0.001)
        stats = loop.driver.counters()
        assert (3, 0, 2) == (stats.adoptions, stats.accepts_shed, stats.groups_free_now)

    with support.serve(support.echo) as server:
        _run(main, {"incremental": own})
    assert [True, True, False, True] == kinds
