# SPDX-License-Identifier: MIT
"""Sends that complete only where the kernel does not take all of their bytes at once.

They are the SENDs that nobody waits for: `Counters.sends_silent`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import threading
import time
import warnings

import pytest

import ioxide
from tests.support import (
    NARROW,
    SMALL,
    TIMEOUT,
    Whole,
    connect,
    noise,
    on_reactor,
    read_exactly,
    serve,
    until,
)

pytestmark = pytest.mark.kernel_gated

REQUESTS = 100
FILL = b"f" * 4000


async def _answer(conn: ioxide.Connection) -> None:
    while data := await conn.recv():
        conn.write(data)


def _fill(*conns: ioxide.Connection) -> list[int]:
    """Send behind the core's back until no socket has room for a while; how many bytes on each."""
    filled, before = [0] * len(conns), [-1]
    while filled != before:
        before = filled.copy()
        for index, conn in enumerate(conns):
            with (
                socket.socket(fileno=os.dup(conn.fileno())) as sock,
                contextlib.suppress(BlockingIOError),
            ):
                while True:
                    filled[index] += sock.send(FILL, socket.MSG_DONTWAIT)
        time.sleep(0.05)  # what is on its way to the peer makes room
    return filled


def test_an_answer_takes_one_enter() -> None:
    """The enter that submits it waits for the next request."""
    with serve(_answer) as server, connect(server) as client:
        for _ in range(REQUESTS):  # connected, and warm
            client.sendall(b"ping")
            assert b"ping" == read_exactly(client, 4)
        before = server.stats()
        for _ in range(REQUESTS):
            client.sendall(b"ping")
            assert b"ping" == read_exactly(client, 4)
        after = server.stats()
    assert REQUESTS == after.sends_silent - before.sends_silent
    assert REQUESTS == after.sends - before.sends
    # Two an answer, if the send had a completion that ended the wait.
    assert after.enters - before.enters <= REQUESTS + REQUESTS // 5


@pytest.mark.parametrize("room", ["some", "none"])
def test_what_a_socket_has_no_room_for_is_sent_later(room: str) -> None:
    """Every byte leaves once and in order; the kernel is not asked again before there is room."""
    body = noise(30_000, seed=3)
    filled = 0

    async def handler(conn: ioxide.Connection) -> None:
        nonlocal filled
        with socket.socket(fileno=os.dup(conn.fileno())) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        await conn.recv()
        if room == "none":
            (filled,) = _fill(conn)
        conn.write(body)
        while data := await conn.recv():
            conn.write(data)

    with serve(handler) as server, connect(server, rcvbuf=NARROW) as client:
        client.sendall(b"x")
        until(lambda: server.stats().sends == 2, "the send that waits for room")
        silent = server.stats().sends_silent
        fill = read_exactly(client, filled)
        assert Whole(b"f" * filled) == Whole(fill)
        assert Whole(body) == Whole(read_exactly(client, len(body)))
        client.sendall(b"and on")
        assert b"and on" == read_exactly(client, 6)
        until(lambda: server.stats().bytes_sent == len(body) + 6, "the books")
        stats = server.stats()
    assert (1, 3, 2) == (silent, stats.sends, stats.sends_silent)
    assert (room == "some") == (stats.partial_sends > 0)


def test_sends_that_fail_where_the_completion_queue_is_full() -> None:
    """A failure that waits for room in the queue is not taken for a success."""
    count, body = 40, noise(1000, seed=4)
    conns: list[ioxide.Connection] = []
    ports: list[int] = []
    filled: list[int] = []

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        ports.append(conn.peername[1])
        while await conn.recv():
            pass

    def write_to_all() -> None:
        filled.extend(_fill(*conns))
        for conn in conns:
            conn.write(body)

    with (
        serve(handler, ring_entries=4, cq_entries=8, recv_slots=64) as server,
        contextlib.ExitStack() as clients,
    ):
        sockets = [clients.enter_context(connect(server, rcvbuf=NARROW)) for _ in range(count)]
        until(lambda: len(conns) == count, "the connections")
        by_port = {sock.getsockname()[1]: sock for sock in sockets}
        ordered = [by_port[port] for port in ports]
        before = server.stats().cq_overflow_events

        on_reactor(server.reactors[0], write_to_all)
        for sock, size in zip(ordered, filled, strict=True):
            read_exactly(sock, size)
            assert Whole(body) == Whole(read_exactly(sock, len(body)))
        assert server.stats().cq_overflow_events > before, "the queue never overflowed"
        assert count == server.stats().sends_silent


def test_a_flush_is_told_of_by_its_own_send() -> None:
    """Nothing else needs to happen."""
    flushed = threading.Event()

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv()
        conn.write(b"pong")
        await conn.flush()
        flushed.set()
        await conn.recv()

    with serve(handler) as server, connect(server) as client:
        client.sendall(b"ping")
        assert b"pong" == read_exactly(client, 4)
        assert flushed.wait(5), "flush() waits for something else than its send"
        assert (1, 0) == (server.stats().sends, server.stats().sends_silent)


def test_a_flush_that_comes_later_finds_all_taken() -> None:
    """What a silent send took counts as sent before any task goes on."""
    seen: list[int] = []

    async def handler(conn: ioxide.Connection) -> None:
        while data := await conn.recv():
            conn.write(data)
            await asyncio.sleep(0.01)
            seen.append(conn.unsent)
            await asyncio.wait_for(conn.flush(), 5)

    with serve(handler) as server, connect(server) as client:
        for _ in range(3):
            client.sendall(b"ping")
            assert b"ping" == read_exactly(client, 4)
            until(lambda: server.stats().sends_silent == len(seen), "the look")
    assert [0, 0, 0] == seen


def test_an_answer_does_not_double_the_read_clock() -> None:
    """It begins with the answer, not anew with the end of the wait, which is its own."""
    limit = 500
    with serve(_answer, read_timeout_ms=limit) as server, connect(server) as client:
        client.sendall(b"ping")
        assert b"ping" == read_exactly(client, 4)
        began = time.monotonic()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        took = (time.monotonic() - began) * 1000
        stats = server.stats()
    assert (1, 1) == (stats.sends_silent, stats.read_timeouts)
    # On a busy machine it is late, but seldom by as long as it is.
    assert limit * 0.8 <= took < limit * 1.9, "the read clock began anew when it had run out"


def test_what_was_taken_does_not_wait_any_more() -> None:
    """Other threads see it while the reactor still waits."""
    size = 16_000
    conns: list[ioxide.Connection] = []

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        await conn.recv()

    with (
        serve(handler, write_limit=size, write_slab_size=4096) as server,
        connect(server) as client,
    ):
        until(lambda: bool(conns), "the connection")
        for count in range(1, 4):
            conns[0].write_threadsafe(bytes(size))  # BufferError, if the last one still waits
            read_exactly(client, size)
            # Long before anything else ends the reactor's wait.
            until(lambda: conns[0].unsent == 0, "the end of the send", timeout=5)
            assert size * count == server.stats().bytes_sent
        assert server.stats().sends_silent == server.stats().sends == 3


@pytest.mark.parametrize("end", ["loop.close()", "abort()", "abort() in the handler"])
def test_an_interrupted_wait_cuts_off_nothing(end: str) -> None:
    """What was sent by it is followed by FIN, whoever ends the connection before the next turn."""
    made: list[asyncio.Transport] = []

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            made.append(transport)

        def data_received(self, data: bytes) -> None:
            made[0].write(data)

    def interrupt(*_: object) -> None:
        if end == "abort() in the handler":
            made[0].abort()
        raise KeyboardInterrupt

    loop = ioxide.new_event_loop(SMALL)
    server = loop.run_until_complete(loop.create_server(Echo, "127.0.0.1", 0))
    main = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with socket.create_connection(server.sockets[0].getsockname(), TIMEOUT) as client:

            def play() -> None:
                client.sendall(b"ping")
                read_exactly(client, 4)
                time.sleep(0.05)  # until the loop waits
                signal.pthread_kill(main, signal.SIGUSR1)

            player = threading.Thread(target=play)
            player.start()
            with pytest.raises(KeyboardInterrupt):
                loop.run_forever()
            player.join()
            if end == "abort()":
                made[0].abort()
            if end != "loop.close()":
                loop.run_until_complete(asyncio.sleep(0))
            server.close()
            assert 1 == loop.driver.counters().sends_silent
            loop.close()
            try:
                rest = client.recv(1)
            except ConnectionResetError:
                raise AssertionError("what was sent was cut off") from None
            assert b"" == rest
    finally:
        signal.signal(signal.SIGUSR1, before)
        loop.close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # what is left of it is not closed
            made.clear()
            gc.collect()
