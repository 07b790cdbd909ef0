# SPDX-License-Identifier: MIT
"""A connection's life ends once, whoever ends it, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from functools import partial

import pytest

import ioxide
from tests import faces
from tests.faces import FACES, Face
from tests.support import (
    TIMEOUT,
    connect,
    echo,
    open_fds,
    read_exactly,
    read_to_end,
    serve,
    until,
)


def reset(client: socket.socket) -> None:
    """Close with RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def test_reset_by_the_peer_raises_in_recv(caplog: pytest.LogCaptureFixture) -> None:
    """A peer's RST is ConnectionResetError in recv(), and no fault of the handler's."""
    errors: list[BaseException] = []
    parked = threading.Event()

    async def handler(conn: ioxide.Connection) -> None:
        conn.write(b"k")
        await conn.flush()
        parked.set()
        try:
            await conn.recv()
        except ConnectionError as error:
            errors.append(error)
            raise

    with serve(handler) as server, connect(server) as client:
        assert b"k" == read_exactly(client, 1)
        assert parked.wait(TIMEOUT)
        reset(client)
        until(lambda: server.stats().closes == 1, "the connection closed")
        assert 0 == server.stats().handler_faults
    assert [ConnectionResetError] == [type(error) for error in errors]
    assert "handler of" not in caplog.text


def test_write_after_close_raises() -> None:
    """write() on a connection that was closed raises BrokenPipeError; recv() returns b''."""
    results: list[object] = []

    async def handler(conn: ioxide.Connection) -> None:
        conn.write(b"last")
        conn.close()
        conn.close()  # again: no harm
        assert conn.closed
        with pytest.raises(BrokenPipeError, match="was closed") as caught:
            conn.write(b"more")
        results.append(type(caught.value))
        results.append(await conn.recv())
        await conn.flush()  # what was written before close() is still sent

    with serve(handler) as server, connect(server) as client:
        assert b"last" == read_to_end(client)
        assert 0 == server.stats().handler_faults
    assert [BrokenPipeError, b""] == results


def test_abort_resets() -> None:
    """abort() drops what waits and resets, and wakes the parked reader with an error."""

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv()
        reader = asyncio.create_task(conn.recv())
        await asyncio.sleep(0)
        conn.write(b"never sent")
        conn.abort()
        with pytest.raises(ConnectionAbortedError, match="abort"):
            await reader
        with pytest.raises(ConnectionAbortedError, match="abort"):
            await conn.flush()

    with serve(handler) as server, connect(server) as client:
        client.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            read_to_end(client)
        until(lambda: server.stats().closes == 1, "the connection closed")
        assert 1 == server.stats().aborts
        assert 0 == server.stats().handler_faults


def test_end_of_handler_sends_all_then_fin() -> None:
    """A handler that ends at once after writing 6 MiB to a slow reader delivers all of it."""
    size = 6 << 20

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv()
        conn.write(b"z" * size)

    with serve(handler) as server, connect(server, rcvbuf=4096) as client:
        client.sendall(b"more than was asked for" * 100)
        assert size == len(read_to_end(client))
        until(lambda: server.stats().closes == 0, "still open: the peer has not closed")
        client.close()
        until(lambda: server.stats().closes == 1, "closed after the peer's FIN")
        assert 0 == server.stats().aborts


def test_recycled_slabs_never_leak_into_another_stream() -> None:
    """Bytes of one connection never turn up in another's stream, parked sends included (#221)."""

    async def handler(conn: ioxide.Connection) -> None:
        mark = await conn.recv(1)
        for _ in range(100):
            conn.write(mark * 8000)
        if mark == b"A":
            conn.abort()  # with a SEND parked behind a closed window

    with serve(handler, pool_max=4) as server:
        for _ in range(5):
            with connect(server, rcvbuf=4096) as a, connect(server) as b:
                a.sendall(b"A")
                b.sendall(b"B")
                assert {ord("B")} == set(read_to_end(b))
                with contextlib.suppress(ConnectionResetError):
                    assert set(read_to_end(a)) <= {ord("A")}
        until(lambda: server.stats().connections_now == 0, "all ended")


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """The soft descriptor limit a little above what is open; put back in the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_descriptors")
@pytest.mark.parametrize("face", FACES)
def test_no_descriptor_left_parks_the_listener(face: Face) -> None:
    """EMFILE parks the listener without a spin, and connections are taken when it is over."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    clients = [socket.socket() for _ in range(8)]
    try:
        # A multishot accept samples the limit when it is armed: so lower it before.
        limit = open_fds() + 12
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        with faces.serve(face, faces.echo) as server:
            spare = [socket.socket() for _ in range(limit - open_fds() - 2)]
            for client in clients:
                client.settimeout(TIMEOUT)
                client.connect(("127.0.0.1", server.port))
                client.sendall(b"x")
            until(lambda: server.stats().accept_pauses >= 2, "a parked listener")
            pauses, enters = server.stats().accept_pauses, server.stats().enters
            threading.Event().wait(0.5)
            assert server.stats().accept_pauses - pauses < 10
            assert server.stats().enters - enters < 50
            for sock in spare:
                sock.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for client in clients:
                assert b"x" == read_exactly(client, 1)
    finally:
        for client in clients:
            client.close()


def test_accepted_sockets() -> None:
    """Accepted sockets are close-on-exec and have TCP_NODELAY, inherited from the listener."""
    seen: list[tuple[bool, int, object]] = []

    async def handler(conn: ioxide.Connection) -> None:
        with socket.socket(fileno=os.dup(conn.fileno())) as sock:
            nodelay = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        seen.append((os.get_inheritable(conn.fileno()), nodelay, conn.peername))

    with serve(handler) as server, connect(server) as client:
        name = client.getsockname()
        assert b"" == read_to_end(client)
    assert [(False, 1, name)] == seen


def _interrupted(server: ioxide.Server, ident: int, before: int) -> bool:
    # Once is not enough: the enter is counted before it is made, and a signal that comes in between
    # interrupts nothing.
    signal.pthread_kill(ident, signal.SIGUSR1)
    return server.stats().enters > before


def test_signals_to_the_reactor_thread_do_no_harm() -> None:
    """Signals to the idle reactor's thread interrupt its wait, and it goes on serving."""
    got: list[int] = []
    old = signal.signal(signal.SIGUSR1, lambda number, _: got.append(number))
    try:
        with serve(echo) as server, connect(server) as client:
            ident = server.reactors[0].thread_ident
            assert ident is not None
            for _ in range(20):
                # An interrupted enter returns -EINTR only if it had submitted nothing (6.18).
                before = server.stats().enters
                until(partial(_interrupted, server, ident, before), "another enter")
            assert server.stats().enter_eintr > 0
            client.sendall(b"x")
            assert b"x" == read_exactly(client, 1)
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert got
