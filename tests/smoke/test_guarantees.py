# SPDX-License-Identifier: MIT
"""Guarantees of tests/clauses.toml that no other file holds: stalls, wakes, clocks, ring fds."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path

import pytest

import ioxide
from tests.support import (
    SMALL,
    TIMEOUT,
    connect,
    on_reactor,
    open_fds,
    read_exactly,
    read_to_end,
    serve,
    until,
    wait_fds,
)


def _moves(server: ioxide.Server) -> bool:
    """Whether the reactor entered the ring within a moment; if not, it sleeps in there."""
    enters = server.stats().enters
    threading.Event().wait(0.3)
    return server.stats().enters != enters


class Holder:
    """A handler that keeps the buffer of whoever sends b"keep", and answers everybody with b"k"."""

    def __init__(self) -> None:
        self.kept: list[memoryview] = []

    async def __call__(self, conn: ioxide.Connection) -> None:
        async with conn.read() as slices:
            if slices and bytes(slices[0]) == b"keep":
                self.kept.append(slices[0][:])
        conn.write(b"k")


@pytest.mark.issue(93)
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
        until(lambda: not _moves(server), "a reactor at rest")
        holder.kept.pop().release()  # on this thread, while the reactor sleeps
        assert b"k" == read_exactly(other, 1)


@pytest.mark.issue(93)
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


@pytest.mark.issue(93)
def test_a_receive_parked_for_ever_ends_with_the_read_clock() -> None:
    """A connection for which no buffer ever comes back is cut off by read_timeout_ms."""
    holder = Holder()
    with (
        serve(holder, recv_slots=1, read_timeout_ms=300) as server,
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


@pytest.mark.issue(96)
def test_one_wake_for_posts_calls_and_returns() -> None:
    """What four threads queue in three ways while the reactor is busy is one eventfd write."""
    holder = Holder()
    ran: list[str] = []
    busy, release = threading.Event(), threading.Event()

    def block() -> None:
        busy.set()
        assert release.wait(TIMEOUT)

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serve(holder, recv_slots=2))
        reactor = server.reactors[0]
        one, two, starved = (stack.enter_context(connect(server)) for _ in range(3))
        for client in (one, two):
            client.sendall(b"keep")
            assert b"k" == read_exactly(client, 1)
        starved.sendall(b"x")
        until(lambda: server.stats().recv_enobufs >= 1, "a receive without a buffer")
        reactor.post(block)
        assert busy.wait(TIMEOUT)

        def queue(number: int) -> None:
            for _ in range(25):
                reactor.post(ran.append, "post")
                reactor.loop.call_soon_threadsafe(ran.append, "call")
            if number < len(views):
                views[number].release()

        views = list(holder.kept)
        holder.kept.clear()
        threads = [threading.Thread(target=queue, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        # The kernel's own count of what was written and not yet read (eventfd(2), hexadecimal).
        info = Path(f"/proc/self/fdinfo/{reactor.driver.wake_fd}").read_text()
        count = next(line.split()[1] for line in info.splitlines() if "eventfd-count" in line)
        release.set()
        until(lambda: len(ran) == 200, "all two hundred callbacks")
        assert b"k" == read_exactly(starved, 1)
        assert 1 == int(count, 16)


@pytest.mark.issue(97)
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
        until(lambda: not _moves(server), "a reactor at rest")
        assert 0 == server.stats().aborts
        client.sendall(b"end")
        assert b"z" * (8 << 20) + b"end" == read_to_end(client)


@pytest.mark.issue(98)
def test_the_seventeenth_ring_of_a_thread_works() -> None:
    """A thread has room for sixteen registered rings; the seventeenth uses its descriptor."""
    with contextlib.ExitStack() as stack:
        drivers = []
        for _ in range(17):
            driver = ioxide.Driver(SMALL)
            stack.callback(driver.close)
            drivers.append(driver)
        assert [True] * 16 + [False] == [driver.ring_fd_registered for driver in drivers]
        for driver in drivers:
            driver.wait(0)  # OSError if it entered by an index that it does not have
    driver = ioxide.Driver(SMALL)
    assert driver.ring_fd_registered
    assert driver.close()


@pytest.mark.issue(101)
def test_counters_add_up_from_any_thread() -> None:
    """While connections come and go: accepted is closed plus open, and nothing counts down."""
    holder = Holder()
    snapshots: list[ioxide.Counters] = []
    with serve(holder, max_connections=4) as server, contextlib.ExitStack() as stack:
        held = [stack.enter_context(connect(server)) for _ in range(4)]
        until(lambda: server.stats().accepts == 4, "four connections")
        for _ in range(3):
            with connect(server) as extra:
                assert b"" == read_to_end(extra)
            snapshots.append(server.stats())
        for client in held:
            client.sendall(b"x")
            assert b"k" == read_to_end(client)
            client.close()
            on_reactor(server.reactors[0], lambda: snapshots.append(server.stats()))
        until(lambda: server.stats().closes == 4, "four ends")
    snapshots.append(server.stats())  # of a server that has stopped
    for stats in snapshots:
        assert stats.accepts == stats.closes + stats.connections_now
    last = snapshots[-1]
    assert (4, 3, 4, 0) == (last.accepts, last.accepts_shed, last.closes, last.connections_now)
    assert (4, 4) == (last.bytes_received, last.bytes_sent)
    for name in ("accepts", "accepts_shed", "closes", "enters", "cqes", "bytes_received"):
        values = [getattr(stats, name) for stats in snapshots]
        assert sorted(values) == values


@pytest.mark.issue(103)
def test_knobs_are_off_by_default() -> None:
    """Whoever asks for nothing gets no busy polling, minimum wait, bundles or zero copy."""
    config = ioxide.ServerConfig()
    assert (0, False, 0, 1) == (
        config.napi_busy_poll_us,
        config.napi_prefer_busy_poll,
        config.min_wait_us,
        config.min_wait_nr,
    )
    assert (None, False, False) == (config.incremental, config.recv_bundle, config.zero_copy_send)
