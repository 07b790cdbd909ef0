# SPDX-License-Identifier: MIT
"""What only asyncio's face of a connection has, asked of every way to move bytes in `ways`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import socket
import threading
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

import ioxide
from tests import support
from tests.faces import Face, echo, serve
from tests.kernel_gated.ways import SHARING, Way, all_back, by_receive, by_way
from tests.support import (
    MIB,
    SMALL,
    TIMEOUT,
    Whole,
    at_rest,
    connect,
    held_and_shed,
    on_reactor,
    open_fds,
    read_exactly,
    until,
    wait_fds,
    wait_unread,
)

pytestmark = pytest.mark.kernel_gated

T = TypeVar("T")


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
            assert Whole(whole) == Whole(await done)
        server.close()
        while loop.driver.counters().connections_now:
            await asyncio.sleep(0.001)
        all_back(loop.driver.counters(), way.changes)

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


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, ioxide.Transport), "not on the ring"
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


@pytest.mark.issue(93)
@pytest.mark.parametrize("changes", SHARING)
def test_a_transport_waits_for_buffers_that_a_handler_holds(changes: dict[str, Any]) -> None:
    """With every buffer of the group lent to a handler a transport stalls, and then goes on."""
    hoarders: list[ioxide.Connection] = []
    lent: list[int] = []
    filled, release = threading.Event(), threading.Event()

    def all_lent() -> bool:
        stats = server.stats()
        return (sum(lent), 4) == (stats.bytes_received, stats.buffers_held_now)

    async def hoard(conn: ioxide.Connection) -> None:
        hoarders.append(conn)
        async with contextlib.AsyncExitStack() as stack:
            # A bundle may come in pieces, and a buffer of it be short: on 6.10 and 6.11 by what was
            # left in another connection (docs/bundles.md). So it reads until all are lent.
            while not all_lent():
                slices = await stack.enter_async_context(conn.read())
                lent.append(sum(len(part) for part in slices))
            filled.set()
            await asyncio.to_thread(release.wait, TIMEOUT)

    few = {"recv_slots": 4, "recv_buffer_size": 64}
    with support.serve(hoard, **few, **changes) as server, connect(server) as hoarder:
        reactor = server.reactors[0]

        def elsewhere(coro: Coroutine[Any, Any, T]) -> T:
            return asyncio.run_coroutine_threadsafe(coro, reactor.loop).result(TIMEOUT)

        def fill() -> None:
            hoarder.sendall(b"h" * 256)
            wait_unread(hoarders[0].fileno(), 256)

        until(lambda: len(hoarders) == 1, "the handler's start")
        on_reactor(reactor, fill)
        assert filled.wait(TIMEOUT), "all four buffers lent"
        taken = sum(lent)
        assert all_lent()
        until(lambda: at_rest(server), "a reactor at rest")
        before = server.stats().recv_enobufs
        other = elsewhere(reactor.loop.create_server(_Echo, "127.0.0.1", 0))
        try:
            with connect(SimpleNamespace(port=other.sockets[0].getsockname()[1])) as client:
                client.sendall(b"question" * 200)
                until(lambda: server.stats().recv_enobufs > before, "a transport without a buffer")
                until(lambda: at_rest(server), "a stall without a spin")
                assert taken == server.stats().bytes_received
                release.set()
                assert b"question" * 200 == read_exactly(client, 1600)
        finally:
            reactor.loop.call_soon_threadsafe(other.close)
    stats = server.stats()
    assert taken + 1600 <= stats.bytes_received <= 256 + 1600
    assert 0 == stats.buffers_held_now
    if "recv_bundle" in changes:
        assert stats.recv_bundles > 0, "another way was taken"


@pytest.mark.needs("INC")
@pytest.mark.issue(92)
def test_connections_beyond_the_group_ids_are_shed() -> None:
    """create_server() closes and counts connection 5 of 4; the others live; the ids come back."""
    own = ioxide.IncrementalConfig(max_connections=4, recv_slots=4, recv_buffer_size=1024)
    with serve(Face.TRANSPORT, echo, incremental=own) as server:
        for cycle in range(1, 11):
            held_and_shed(server, held=4, shed=3)
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
