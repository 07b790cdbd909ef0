# SPDX-License-Identifier: MIT
"""Issue #93: a receive that finds no buffer waits for one; it is no error of the peer's.

A multishot receive ends with -ENOBUFS when its group is empty (6.0).  Armed again on an empty group
it ends at once, bytes or not (6.18): who re-arms without a free buffer spins.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading

import pytest

import ioxide
from tests.kernel_gated.modes import MODES, SMALL_INCREMENTAL, Changes
from tests.support import (
    TIMEOUT,
    Holder,
    LateReader,
    Whole,
    at_rest,
    connect,
    noise,
    on_reactor,
    open_fds,
    read_exactly,
    read_to_end,
    sending,
    serve,
    unread,
    until,
    wait_fds,
    wait_unread,
)

pytestmark = [pytest.mark.kernel_gated, pytest.mark.issue(93)]


@pytest.mark.parametrize("mode", MODES)
def test_no_buffer_left_stalls_and_goes_on(mode: Changes) -> None:
    """A connection whose buffers are all held waits, without a spin, and then goes on."""
    small: Changes = {"recv_slots": 4, "recv_buffer_size": 1024}
    sent = random.Random(93).randbytes(12 * 1024)
    release = threading.Event()
    bodies: list[Whole] = []

    async def handler(conn: ioxide.Connection) -> None:
        async with conn.read() as slices:
            body = b"".join(slices)
            await asyncio.to_thread(release.wait, TIMEOUT)
        while data := await conn.recv():
            body += data
        bodies.append(Whole(body))
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
    assert [Whole(sent)] == bodies


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


def test_a_return_from_another_thread_ends_a_stall() -> None:
    """A buffer given back by a foreign thread serves the connection that waits for it."""
    holder = Holder()
    with (
        serve(holder, recv_slots=1) as server,
        connect(server) as one,
        connect(server) as other,
    ):
        one.sendall(b"keep")
        assert b"k" == read_exactly(one, 1)
        other.sendall(b"x")
        until(lambda: server.stats().recv_enobufs >= 1, "a receive without a buffer")
        until(lambda: at_rest(server), "a reactor at rest")
        holder.kept.pop().release()  # on this thread, while the reactor sleeps
        assert b"k" == read_exactly(other, 1)


def test_a_peer_that_leaves_while_its_receive_is_parked() -> None:
    """Its descriptor is closed when the receive is armed again, and nobody else is harmed."""
    holder = Holder()
    before = open_fds()
    with serve(holder, recv_slots=1) as server:
        with connect(server) as one:
            one.sendall(b"keep")
            assert b"k" == read_exactly(one, 1)
            with connect(server) as leaver:
                leaver.sendall(b"x")
                until(lambda: server.stats().recv_enobufs >= 1, "a receive without a buffer")
            holder.kept.pop().release()
            until(lambda: server.stats().connections_now == 1, "the end of the one that left")
            with connect(server) as other:
                other.sendall(b"x")
                assert b"k" == read_to_end(other)
        until(lambda: server.stats().connections_now == 0, "the end of the others")
        assert 0 == server.stats().buffers_held_now
    wait_fds(before)


def test_a_receive_parked_for_ever_ends_with_the_read_clock() -> None:
    """A connection for which no buffer ever comes back is cut off by read_timeout_ms."""
    holder = Holder()
    with (
        serve(holder, recv_slots=1, read_timeout_ms=1500) as server,
        connect(server) as one,
        connect(server) as other,
    ):
        one.sendall(b"keep")
        assert b"k" == read_exactly(one, 1)
        other.sendall(b"x")
        until(lambda: server.stats().recv_enobufs >= 1, "a receive without a buffer")
        with pytest.raises(ConnectionResetError):
            read_to_end(other)
        assert b"keep" == bytes(holder.kept[0])
        holder.kept.pop().release()


def test_idle_connections_do_not_starve_a_busy_one() -> None:
    """One buffer that comes back serves whoever has bytes, not just who has waited longest."""
    holding, release = threading.Event(), threading.Event()

    async def handler(conn: ioxide.Connection) -> None:
        async with conn.read() as slices:
            if slices and bytes(slices[0]) == b"hold":
                holding.set()
                await asyncio.to_thread(release.wait, TIMEOUT)
        conn.write(b"served")

    with serve(handler, recv_slots=1) as server, connect(server) as holder:
        holder.sendall(b"hold")
        assert holding.wait(TIMEOUT)
        with connect(server), connect(server) as busy:  # the first one stays silent
            busy.sendall(b"x")
            until(lambda: server.stats().recv_enobufs >= 2, "both wait for a buffer")
            release.set()
            assert b"served" == read_to_end(busy)
            assert b"served" == read_to_end(holder)


def test_full_queue_pauses_the_receive() -> None:
    """At recv_queue_entries the receive is paused and later goes on; nothing is closed or lost."""
    sent = noise(200_000, seed=97)
    reader = LateReader()
    with (
        serve(reader, recv_queue_entries=4, recv_slots=256, recv_buffer_size=512) as server,
        connect(server) as client,
        connect(server) as other,
        sending(client, [sent]),
    ):
        until(lambda: server.stats().recv_pauses >= 1, "a paused receive")
        other.sendall(b"?")
        reader.release.set()
        assert b"whole" == read_to_end(client)
        # How far a queue outgrows the limit is the kernel's: a turn of a multishot receive takes up
        # to 33 buffers on 6.18, and on 6.1 as many as there are bytes.
    assert Whole(sent) == reader.bodies[0]  # the other one has ended its stream later


@pytest.mark.parametrize(
    ("limit", "parts"),
    [
        ({"recv_queue_entries": 4}, 128),
        ({"recv_queue_entries": 1 << 16, "recv_queue_bytes": 512}, 128),
        ({"recv_queue_entries": 4}, 32),
        ({"recv_queue_entries": 1 << 16, "recv_queue_bytes": 512}, 32),
    ],
    ids=["entries", "bytes", "entries-still-armed", "bytes-still-armed"],
)
def test_a_full_queue_leaves_bytes_in_the_socket(limit: Changes, parts: int) -> None:
    """What comes after a receive was paused stays in the socket, however many ticks pass.

    128 parts use up the 64 buffers that are provided, which ends the receive; 32 do not, so that
    it has to be cancelled.
    """
    first = random.Random(128).randbytes(parts * 128)
    more = random.Random(129).randbytes(16 * 1024)
    fds: list[int] = []
    release = threading.Event()

    async def handler(conn: ioxide.Connection) -> None:
        fds.append(conn.fileno())
        await asyncio.to_thread(release.wait, TIMEOUT)
        while data := await conn.recv():
            conn.write(data)

    with (
        serve(handler, recv_slots=2048, recv_buffer_size=128, **limit) as server,
        connect(server) as client,
    ):
        reactor = server.reactors[0]
        until(lambda: len(fds) == 1, "the connection")

        def block(data: bytes) -> None:
            waiting = unread(fds[0])
            client.sendall(data)
            wait_unread(fds[0], waiting + len(data))

        def ticks() -> None:
            for _ in range(40):  # the kernel takes at least one part in each, if it may
                on_reactor(reactor, lambda: None)

        # How many parts a turn takes before the cancel reaches it is the kernel's: up to 33 at a
        # time on 6.18, in at most four goes (CQ_KEPT in ring.c); on 6.1 and on 7.3 all there are.
        on_reactor(reactor, lambda: block(first))
        until(lambda: server.stats().recv_pauses == 1, "a paused receive")
        ticks()
        on_reactor(reactor, lambda: block(more))
        ticks()
        assert len(more) <= unread(fds[0]), "a paused receive went on"

        release.set()
        client.shutdown(1)
        assert first + more == read_to_end(client)
        assert 0 == server.stats().recv_enobufs


async def _keeper(conn: ioxide.Connection) -> None:
    """Keep what comes first, and its buffer with it; answer with what comes then."""
    async with conn.read() as slices:
        kept.append(slices[0][:])
    conn.write(b"k")
    conn.write(b"then " + await conn.recv())


kept: list[memoryview] = []
ONE = ioxide.IncrementalConfig(max_connections=4, recv_slots=1, recv_buffer_size=64)
"""A connection has one buffer, which 64 bytes fill."""


def _starve(server: ioxide.Server, client: socket.socket) -> None:
    """Bytes wait in `client`'s socket, and its only buffer is held."""
    client.sendall(b"h" * 64)
    assert b"k" == read_exactly(client, 1)
    client.sendall(b"more")
    until(lambda: server.stats().recv_enobufs >= 1, "a receive without a buffer")
    until(lambda: at_rest(server), "a reactor at rest")


@pytest.mark.needs("INC")
def test_a_return_from_another_thread_serves_its_own_connection() -> None:
    """Incremental: a buffer that a foreign thread gives back ends the stall of its connection."""
    with serve(_keeper, incremental=ONE) as server, connect(server) as client:
        _starve(server, client)
        kept.pop().release()  # on this thread, while the reactor sleeps
        assert b"then more" == read_to_end(client)


@pytest.mark.needs("INC")
def test_two_starved_connections_wait_for_their_own_buffers() -> None:
    """Incremental: what one connection gives back wakes that one, and arms nobody else."""
    with (
        serve(_keeper, incremental=ONE) as server,
        connect(server) as one,
        connect(server) as two,
    ):
        _starve(server, one)
        _starve(server, two)
        until(lambda: server.stats().recv_enobufs == 2, "both without a buffer")
        kept.pop().release()
        assert b"then more" == read_to_end(two)
        until(lambda: at_rest(server), "a reactor at rest")
        assert 2 == server.stats().recv_enobufs  # nobody was armed in vain
        kept.pop().release()
        assert b"then more" == read_to_end(one)


@pytest.mark.needs("INC")
def test_a_starved_peer_that_leaves_or_is_never_served() -> None:
    """Incremental: a parked receive ends with the peer, or else with the read clock."""
    before = open_fds()
    with serve(_keeper, incremental=ONE, read_timeout_ms=0) as server:
        with connect(server) as leaver:
            _starve(server, leaver)
        kept.pop().release()
        until(lambda: server.stats().connections_now == 0, "the end of the one that left")
        until(lambda: server.stats().groups_free_now == 4, "its group id back")
    with serve(_keeper, incremental=ONE, read_timeout_ms=1500) as server:
        with connect(server) as patient:
            patient.sendall(b"h" * 64)
            assert b"k" == read_exactly(patient, 1)
            patient.sendall(b"more")
            with pytest.raises(ConnectionResetError):
                read_to_end(patient)
        assert (1, 1) == (server.stats().recv_enobufs, server.stats().read_timeouts)
        kept.pop().release()
        until(lambda: server.stats().groups_free_now == 4, "every group id back")
    wait_fds(before)
