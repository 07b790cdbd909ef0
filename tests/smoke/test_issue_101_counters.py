# SPDX-License-Identifier: MIT
"""Issue #101: what happens is counted, and the counts add up in any snapshot from any thread.

The kernel counts little for us: cq_off.overflow only knows completions that it dropped, not those
that it spilled (6.18), so an overflow is seen in the submission queue's flags.
"""

from __future__ import annotations

import contextlib

import pytest

import ioxide
from tests.support import (
    Holder,
    connect,
    on_reactor,
    open_fds,
    read_to_end,
    serve,
    until,
    wait_fds,
)

pytestmark = pytest.mark.issue(101)


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


def test_bytes_that_nobody_reads_are_counted() -> None:
    """What is received is what the handler took and what was thrown away, before and after FIN."""

    async def one_byte(conn: ioxide.Connection) -> None:
        await conn.recv(1)

    with serve(one_byte) as server:
        with connect(server) as client:
            client.sendall(b"x" * 10)
            assert b"" == read_to_end(client)
            client.sendall(b"y" * 5)
        until(lambda: server.stats().connections_now == 0, "the end of the connection")
        stats = server.stats()
        assert (15, 14) == (stats.bytes_received, stats.bytes_unread)


def test_bytes_that_were_never_sent_are_counted() -> None:
    """What is written is what the kernel took, and what an aborted connection still had."""

    async def cut_off(conn: ioxide.Connection) -> None:
        await conn.recv()
        conn.write(b"x" * 1000)
        await conn.flush()
        conn.write(b"y" * 300)
        conn.abort()

    with serve(cut_off) as server:
        with connect(server) as client:
            client.sendall(b"go")
            until(lambda: server.stats().closes == 1, "the end of the connection")
        stats = server.stats()
        assert (1000, 300) == (stats.bytes_sent, stats.bytes_unsent)


def test_many_short_connections_leave_nothing() -> None:
    """After 300 connections, ended in three ways, descriptors and buffers are all back."""

    async def handler(conn: ioxide.Connection) -> None:
        data = await conn.recv()
        if data == b"1":
            conn.abort()
        elif data == b"2":
            conn.write(b"bye")

    before = open_fds()
    with serve(handler) as server:
        started = open_fds()
        for number in range(300):
            with connect(server) as client:
                client.sendall(b"%d" % (number % 3))
        until(lambda: server.stats().closes == 300, "all closed")
        wait_fds(started)
        assert 0 == server.stats().buffers_held_now
        assert 300 == server.stats().accepts
    wait_fds(before)
