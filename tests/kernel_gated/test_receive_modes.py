# SPDX-License-Identifier: MIT
"""What every way to receive has to guarantee: bytes whole and in order, buffers all back."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import ioxide
from tests.kernel_gated.modes import MODES, SENDS, SMALL_INCREMENTAL, Changes
from tests.support import (
    TIMEOUT,
    connect,
    echo,
    on_reactor,
    read_exactly,
    read_to_end,
    serve,
    until,
    wait_unread,
)

pytestmark = pytest.mark.kernel_gated

MIB = 1 << 20
ROOT = Path(__file__).parents[2]


@pytest.mark.issue(100)
@pytest.mark.parametrize("send", SENDS)
@pytest.mark.parametrize("mode", MODES)
def test_bytes_come_back_whole(mode: Changes, send: Changes) -> None:
    """Two MiB in pieces of 1 byte to 64 KiB come back equal, however they are received and sent."""
    draw = random.Random(100)
    sent = draw.randbytes(2 * MIB)

    def pieces() -> None:
        rest = memoryview(sent)
        while rest:
            size = draw.choice((1, 7, 500, 4096, 65536))
            client.sendall(rest[:size])
            rest = rest[size:]
        client.shutdown(socket.SHUT_WR)

    with serve(echo, **mode, **send) as server, connect(server) as client:
        sender = threading.Thread(target=pieces)
        sender.start()
        received = read_to_end(client)
        sender.join()
        stats = server.stats()
    assert hashlib.sha256(sent).hexdigest() == hashlib.sha256(received).hexdigest()
    assert bool(send) == (stats.sends_zc + stats.zc_fallbacks > 0)
    assert 0 == stats.unknown_cqes
    until(lambda: server.stats().buffers_held_now == 0, "every buffer back")


@pytest.mark.issue(100)
@pytest.mark.needs("SEND_ZC")
@pytest.mark.parametrize("mode", MODES)
def test_zero_copy_send_in_every_mode(mode: Changes) -> None:
    """With zero_copy_send answers leave by SEND_ZC, each with its notification, in every mode."""
    body = random.Random(1).randbytes(65536)
    with serve(echo, **mode, zero_copy_send=True) as server, connect(server) as client:
        for _ in range(3):
            client.sendall(body)
            assert body == read_exactly(client, len(body))
        # What is written while a notification is due is copied: so at least one, not all three.
        until(lambda: server.stats().sends_zc >= 1, "a SEND_ZC")
        until(lambda: server.stats().zc_notifs == server.stats().sends_zc, "all notifications")


@pytest.mark.needs("SEND_ZC")
def test_zero_copy_send_to_a_peer_that_takes_nothing() -> None:
    """A SEND_ZC behind a closed window ends with the send clock, memory and descriptor too."""

    async def handler(conn: ioxide.Connection) -> None:
        conn.write(b"z" * (8 * MIB))
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


@pytest.mark.issue(92)
@pytest.mark.needs("INC")
def test_connections_beyond_the_groups_are_shed() -> None:
    """Connection max_connections + 1 is closed, the others live, and capacity comes back."""
    own = ioxide.IncrementalConfig(max_connections=4, recv_slots=4, recv_buffer_size=1024)
    with serve(echo, incremental=own) as server:
        for cycle in range(20):
            with contextlib.ExitStack() as stack:
                held = [stack.enter_context(connect(server)) for _ in range(4)]
                for client in held:
                    client.sendall(b"x")
                    assert b"x" == read_exactly(client, 1)
                for _ in range(3):
                    with connect(server) as extra:
                        assert b"" == extra.recv(1)
                held[0].sendall(b"y")
                assert b"y" == read_exactly(held[0], 1)
            assert 3 * (cycle + 1) == server.stats().accepts_shed
            until(lambda: server.stats().groups_free_now == 4, "all group ids back")


@pytest.mark.issue(93)
@pytest.mark.parametrize("mode", MODES)
def test_no_buffer_left_stalls_and_goes_on(mode: Changes) -> None:
    """A connection whose buffers are all held waits, without a spin, and then goes on."""
    small: Changes = {"recv_slots": 4, "recv_buffer_size": 1024}
    sent = random.Random(93).randbytes(12 * 1024)
    release = threading.Event()
    digests: list[str] = []

    async def handler(conn: ioxide.Connection) -> None:
        async with conn.read() as slices:
            body = b"".join(slices)
            await asyncio.to_thread(release.wait, TIMEOUT)
        while data := await conn.recv():
            body += data
        digests.append(hashlib.sha256(body).hexdigest())
        conn.write(b"whole")

    with serve(handler, **{**small, **mode}) as server, connect(server) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        until(lambda: server.stats().recv_enobufs >= 1, "a receive without a buffer")
        enters = server.stats().enters
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)
        client.settimeout(TIMEOUT)
        threading.Event().wait(0.3)
        assert server.stats().enters - enters < 5
        release.set()
        assert b"whole" == read_to_end(client)
    assert [hashlib.sha256(sent).hexdigest()] == digests


@pytest.mark.issue(93)
@pytest.mark.needs("INC")
def test_a_starved_connection_starves_nobody_else() -> None:
    """In incremental mode a connection that hoards its buffers leaves the others alone."""
    release = threading.Event()

    async def handler(conn: ioxide.Connection) -> None:
        async with conn.read() as slices:
            hoard = bytes(slices[0][:1]) == b"h"
            if hoard:
                await asyncio.to_thread(release.wait, TIMEOUT)
        if hoard:
            while await conn.recv():
                pass
        conn.write(b"served")

    with serve(handler, incremental=SMALL_INCREMENTAL) as server, connect(server) as hoarder:
        hoarder.sendall(b"h" * 8192)
        hoarder.shutdown(socket.SHUT_WR)
        until(lambda: server.stats().recv_enobufs >= 1, "a connection without a buffer")
        for _ in range(10):
            with connect(server) as other:
                other.sendall(b"x")
                assert b"served" == read_to_end(other)
        release.set()
        assert b"served" == read_to_end(hoarder)


@pytest.mark.issue(95)
@pytest.mark.parametrize("mode", MODES)
def test_completion_queue_overflow_loses_nothing(mode: Changes) -> None:
    """Eight rounds of 24 messages into a queue of 8 completions: every echo matches."""
    count = 24
    conns: list[ioxide.Connection] = []

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        await echo(conn)

    with (
        serve(handler, **mode, ring_entries=4, cq_entries=8) as server,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(connect(server)) for _ in range(count)]
        until(lambda: len(conns) == count, "all connections")
        for number in range(8):
            message = b"%02d" % number * 16

            def block(message: bytes = message) -> None:
                for client in clients:
                    client.sendall(message)
                for conn in conns:
                    wait_unread(conn.fileno(), len(message))

            on_reactor(server.reactors[0], block)
            for client in clients:
                assert message == read_exactly(client, len(message))
        assert server.stats().cq_overflow_events >= 1
        on_reactor(server.reactors[0], lambda: None)


@pytest.mark.needs("INC")
def test_incremental_appends() -> None:
    """Small messages one after the other go on in the same buffer instead of using one each."""
    with serve(echo, incremental=SMALL_INCREMENTAL) as server, connect(server) as client:
        for number in range(64):
            message = b"message %03d" % number
            client.sendall(message)
            assert message == read_exactly(client, len(message))
        assert server.stats().recv_appends >= 32


@pytest.mark.needs("BUNDLE")
def test_bundle_spans_buffers() -> None:
    """Bytes that wait in more than one buffer's length come in one completion."""
    conns: list[ioxide.Connection] = []

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        await echo(conn)

    sent = random.Random(6).randbytes(8192)
    with (
        serve(handler, recv_bundle=True, recv_buffer_size=512) as server,
        connect(server) as client,
    ):
        until(lambda: len(conns) == 1, "the connection")

        def block() -> None:
            client.sendall(sent)
            wait_unread(conns[0].fileno(), len(sent))

        on_reactor(server.reactors[0], block)
        assert sent == read_exactly(client, len(sent))
        assert server.stats().recv_bundles >= 1


@pytest.mark.parametrize("mode", MODES)
def test_a_slice_outlives_its_connection(mode: Changes) -> None:
    """A view kept after the connection ended stays what it was, and its buffer comes back last."""
    kept: list[memoryview] = []

    async def handler(conn: ioxide.Connection) -> None:
        async with conn.read() as slices:
            if bytes(slices[0][:4]) == b"keep":
                kept.append(slices[0][:])

    with serve(handler, **mode) as server:
        with connect(server) as client:
            client.sendall(b"keep this")
            assert b"" == read_to_end(client)
        until(lambda: server.stats().closes == 1, "the connection's end")
        for _ in range(100):
            with connect(server) as client:
                client.sendall(b"something else")
                assert b"" == read_to_end(client)
        assert b"keep this" == bytes(kept[0])
        assert 1 == server.stats().slices_lent_now
    assert b"keep this" == bytes(kept[0])  # and after the reactor's end
    kept.pop().release()


@pytest.mark.parametrize("mode", MODES)
def test_early_returning_handlers_strand_no_buffer(mode: Changes) -> None:
    """Sixty-four connections whose handlers leave bytes unread, and all are answered."""

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv(1)
        conn.write(b"k")

    with serve(handler, **{"recv_slots": 16, **mode}) as server:
        for _ in range(64):
            with connect(server) as client:
                client.sendall(b"x" * 100)
                assert b"k" == read_to_end(client)
        until(lambda: server.stats().connections_now == 0, "all ended")
        assert 0 == server.stats().buffers_held_now
        assert 64 == server.stats().accepts


ORDINARY_USER = """
import encodings.idna, os, resource, socket  # all before the user changes
import ioxide
from tests.support import connect, read_to_end, serve

async def handler(conn):
    conn.write(b"z" * (12 << 20))

resource.setrlimit(resource.RLIMIT_MEMLOCK, (4 << 20, 4 << 20))
if os.geteuid() == 0:  # root may pin as much as it likes
    os.setgid(65534)
    os.setuid(65534)
with serve(handler, zero_copy_send=True) as server, connect(server) as client:
    print(len(read_to_end(client)), server.stats().zc_fallbacks)
"""


@pytest.mark.needs("SEND_ZC")
def test_zero_copy_send_beyond_the_memlock_limit_is_copied() -> None:
    """An ordinary user's answer that is larger than may be pinned is sent as a copy, whole."""
    done = subprocess.run(
        [sys.executable, "-c", ORDINARY_USER],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert ("", f"{12 << 20} 1\n", 0) == (done.stderr, done.stdout, done.returncode)
