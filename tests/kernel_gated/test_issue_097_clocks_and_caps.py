# SPDX-License-Identifier: MIT
"""Issue #97: silent peers, peers that take nothing, and too many peers are bounded.

shutdown(2) ends an armed receive and a parked SEND, but neither drops the kernel's write queue nor
completes a SEND_ZC's notification (6.18).  A peer that sends a byte now and then (slowloris) is not
covered: each byte starts the read clock again, by design.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time

import pytest

import ioxide
from tests.kernel_gated.modes import MODES, Changes, brief
from tests.support import (
    TIMEOUT,
    at_rest,
    connect,
    echo,
    on_reactor,
    read_exactly,
    read_to_end,
    serve,
    until,
)

pytestmark = [pytest.mark.kernel_gated, pytest.mark.issue(97)]


@pytest.mark.parametrize("mode", MODES)
def test_silent_peer_runs_into_the_read_clock(mode: Changes) -> None:
    """A parked read ends after read_timeout_ms with ConnectionAbortedError; a busy one does not."""
    errors: list[str] = []

    async def handler(conn: ioxide.Connection) -> None:
        await asyncio.sleep(0.5)  # busy, not parked: no clock runs
        conn.write(await conn.recv())
        try:
            await conn.recv()
        except ConnectionAbortedError as error:
            errors.append(str(error))

    with serve(handler, **mode, read_timeout_ms=200) as server, connect(server) as client:
        client.sendall(b"early")
        assert b"early" == read_exactly(client, 5)
        with pytest.raises(ConnectionResetError):
            read_to_end(client)
        assert 1 == server.stats().read_timeouts
    assert ["read_timeout_ms" in error for error in errors] == [True]


@pytest.mark.parametrize("mode", MODES)
def test_peer_that_takes_nothing_runs_into_the_send_clock(mode: Changes) -> None:
    """A flush that the peer's closed window holds up ends after send_timeout_ms."""
    errors: list[str] = []

    async def handler(conn: ioxide.Connection) -> None:
        conn.write(b"z" * (8 << 20))
        try:
            await conn.flush()
        except ConnectionAbortedError as error:
            errors.append(str(error))

    with (
        serve(handler, **mode, send_timeout_ms=200) as server,
        connect(server, rcvbuf=4096),
    ):
        until(lambda: server.stats().send_timeouts == 1, "the send clock")
        until(lambda: server.stats().connections_now == 0, "the connection's end")
    assert ["send_timeout_ms" in error for error in errors] == [True]


def test_one_send_clock_for_a_batch_of_several_sends() -> None:
    """A peer that takes some all the time does not hold a batch beyond send_timeout_ms.

    A message of more than 1024 slabs takes several sends, each of which ends well within the clock.
    """
    errors: list[str] = []
    size = 40 << 20

    async def handler(conn: ioxide.Connection) -> None:
        conn.write(bytearray(size))  # bytes would be held, in one send
        try:
            await conn.flush()
        except ConnectionAbortedError as error:
            errors.append(str(error))

    received = 0
    with (
        serve(
            handler,
            send_timeout_ms=1500,
            write_limit=size,
            write_slab_size=4096,
            write_overflow=ioxide.WriteOverflow.SEGMENTED,
        ) as server,
        connect(server, rcvbuf=65536) as client,
        contextlib.suppress(ConnectionResetError),
    ):
        while part := client.recv(1 << 20):
            received += len(part)
            # 4 MiB, one send, in 0.4 s; all of it in 4 s.
            time.sleep(0.4 * len(part) / (4 << 20))
    assert ["send_timeout_ms" in error for error in errors] == [True], f"{received} of {size} taken"
    assert 1 == server.stats().send_timeouts


@pytest.mark.needs("SEND_ZC")
def test_zero_copy_send_to_a_peer_that_takes_nothing() -> None:
    """A SEND_ZC behind a closed window ends with the send clock, memory and descriptor too."""

    async def handler(conn: ioxide.Connection) -> None:
        conn.write(b"z" * (8 << 20))
        with pytest.raises(ConnectionAbortedError, match="send_timeout_ms"):
            await conn.flush()

    with (
        serve(handler, zero_copy_send=True, send_timeout_ms=300) as server,
        connect(server, rcvbuf=4096),
    ):
        until(lambda: server.stats().send_timeouts == 1, "the send clock")
        # The peer is still there and never reads: nothing but our own reset ends it.
        until(lambda: server.stats().closes == 1, "the descriptor closed")
        assert server.stats().zc_notifs == server.stats().sends_zc
        assert 0 == server.stats().handler_faults


def test_no_timeout_is_no_clock() -> None:
    """With both clocks off a parked read and a stalled flush wait, without a single enter."""

    async def handler(conn: ioxide.Connection) -> None:
        flush = asyncio.create_task(_flush(conn))
        conn.write(await conn.recv())
        await flush

    async def _flush(conn: ioxide.Connection) -> None:
        conn.write(b"z" * (8 << 20))
        await conn.flush()

    with (
        serve(handler, read_timeout_ms=0, send_timeout_ms=0) as server,
        connect(server, rcvbuf=4096) as client,
    ):
        until(lambda: server.stats().sends == 1, "a SEND behind a closed window")
        until(lambda: at_rest(server), "a reactor at rest")
        assert 0 == server.stats().aborts
        client.sendall(b"end")
        assert b"z" * (8 << 20) + b"end" == read_to_end(client)


@pytest.mark.slow  # three seconds of waiting, because a shorter clock would be a race in a guest
def test_a_busy_reactor_calls_nobody_late() -> None:
    """Bytes that came in time are delivered, however long the reactor was busy meanwhile."""
    count = 100
    with (
        serve(echo, read_timeout_ms=3000, ring_entries=4, cq_entries=8) as server,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(connect(server)) for _ in range(count)]
        for client in clients:
            client.sendall(b"x")
            assert b"x" == read_exactly(client, 1)

        def be_busy() -> None:
            for client in clients:
                client.sendall(b"y")
            time.sleep(3.5)  # beyond all their clocks; in a slow guest, too, all came in time

        on_reactor(server.reactors[0], be_busy)
        for client in clients:
            assert b"y" == read_exactly(client, 1)
        assert 0 == server.stats().read_timeouts


def test_a_clock_starts_when_the_read_parks() -> None:
    """A handler that was busy for longer than the timeout still has all of it for its next read."""
    busy = threading.Event()

    async def handler(conn: ioxide.Connection) -> None:
        while data := await conn.recv():
            if data == b"busy":
                busy.set()
                time.sleep(2.2)  # on purpose: the whole reactor stands still
            else:  # an answer that is taken would start the clock anew
                conn.write(data)

    with serve(handler, read_timeout_ms=2000) as server, connect(server) as client:
        client.sendall(b"busy")
        assert busy.wait(TIMEOUT)
        with connect(server) as other:
            other.sendall(b"x")  # an unrelated event makes the clocks be looked at
            assert b"x" == read_exactly(other, 1)
        client.sendall(b"again")
        assert b"again" == read_exactly(client, 5)
        assert 0 == server.stats().read_timeouts


def test_a_reader_that_ends_leaves_the_clock_of_the_fin() -> None:
    """close() under a parked subtask: a peer that never closes is still cut off in the end."""

    async def handler(conn: ioxide.Connection) -> None:
        reader = asyncio.create_task(conn.recv())
        await asyncio.sleep(0.01)
        conn.close()
        assert await reader == b""

    with serve(handler, read_timeout_ms=1000) as server, connect(server) as client:
        assert b"" == client.recv(1)
        until(lambda: server.stats().connections_now == 0, "cut off by the read clock", timeout=20)
        assert 1 == server.stats().read_timeouts
        assert 0 == server.stats().handler_faults


def test_connections_beyond_the_cap_are_shed() -> None:
    """Connection max_connections + 1 is closed at once; one that leaves makes room (#92, #97)."""
    with serve(echo, max_connections=2) as server:
        with connect(server) as one, connect(server) as two:
            for client in (one, two):
                client.sendall(b"x")
                assert b"x" == read_exactly(client, 1)
            with connect(server) as extra:
                assert b"" == extra.recv(1)
            assert 1 == server.stats().accepts_shed
            one.sendall(b"y")
            assert b"y" == read_exactly(one, 1)
        until(lambda: server.stats().connections_now == 0, "room again")
        with connect(server) as again:
            again.sendall(b"z")
            assert b"z" == read_exactly(again, 1)


@pytest.mark.parametrize("mode", brief(MODES))
def test_a_peer_that_is_heard_of_is_not_silent(mode: Changes) -> None:
    """Bytes now and then keep a connection for longer than the read clock runs."""
    with serve(echo, **mode, read_timeout_ms=1500) as server, connect(server) as client:
        for _ in range(6):
            time.sleep(0.3)  # what is tried is this pace: 1.8 s in all
            client.sendall(b"ping")
            assert b"ping" == read_exactly(client, 4)
        assert 0 == server.stats().read_timeouts


@pytest.mark.parametrize("flushed", [True, False], ids=["flushed", "written"])
def test_a_peer_that_takes_what_is_pushed_is_not_silent(flushed: bool) -> None:
    """A server that pushes under a parked read keeps a peer that only listens."""

    async def handler(conn: ioxide.Connection) -> None:
        reader = asyncio.create_task(conn.recv())
        for _ in range(6):
            await asyncio.sleep(0.3)
            conn.write(b"tick")
            if flushed:
                await conn.flush()
        assert b"" == await reader

    with serve(handler, read_timeout_ms=1500) as server, connect(server) as client:
        assert b"tick" * 6 == read_exactly(client, 24)
        client.shutdown(socket.SHUT_WR)
        assert b"" == read_to_end(client)
        assert (0, 0) == (server.stats().read_timeouts, server.stats().handler_faults)


def _finds_nobody(client: socket.socket) -> bool:
    try:
        client.sendall(b"still here")
    except ConnectionResetError:
        return True
    return False


def test_a_peer_that_ignores_the_fin_is_cut_off() -> None:
    """The handler has ended, and the peer neither closes nor stops writing: it is reset in time."""

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv()

    with serve(handler, read_timeout_ms=1000) as server, connect(server) as client:
        client.sendall(b"x")
        assert b"" == client.recv(1)  # its FIN, which this side ignores
        until(lambda: server.stats().read_timeouts == 1, "the clock of the peer's FIN")
        until(lambda: server.stats().connections_now == 0, "the descriptor closed")
        until(lambda: _finds_nobody(client), "a reset for who goes on writing")
