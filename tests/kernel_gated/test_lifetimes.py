# SPDX-License-Identifier: MIT
"""Numbers that the kernel gives out again: descriptors and group ids belong to one life at a time.

A descriptor's number is the lowest that is free (open(2)), so the next connection gets the one that
was closed last.  A group id that is registered anew while the old receive is still armed takes the
old socket's bytes (6.18).
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path

import pytest

import ioxide
from tests.support import (
    SMALL,
    TIMEOUT,
    Client,
    connect,
    echo,
    new_threads,
    on_reactor,
    open_fds,
    read_exactly,
    serve,
    until,
)

pytestmark = pytest.mark.kernel_gated


def test_a_dead_connection_leaves_its_number_alone() -> None:
    """What an ended connection is told does not reach the one that has its descriptor now."""
    conns: list[ioxide.Connection] = []
    numbers: list[int] = []

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        numbers.append(conn.fileno())
        await echo(conn)

    with serve(handler) as server, connect(server):
        until(lambda: len(conns) == 1, "the first connection")
        reactor = server.reactors[0]
        second = Client()  # made before the number is free: it shall be the accepted socket's
        on_reactor(reactor, lambda: conns[0].abort())
        until(lambda: server.stats().closes == 1, "the first one's end")
        with second:
            second.settimeout(TIMEOUT)
            second.connect(("127.0.0.1", server.port))
            until(lambda: len(conns) == 2, "the second connection")
            assert numbers[0] == numbers[1]  # or nothing is tried here
            seen: list[int] = []

            def late() -> None:
                dead = conns[0]
                seen.append(dead.fileno())
                dead.close()
                dead.abort()
                with contextlib.suppress(OSError):
                    dead.write(b"to nobody")

            on_reactor(reactor, late)
            second.sendall(b"mine alone")
            assert b"mine alone" == read_exactly(second, 10)
            assert [-1] == seen
        until(lambda: server.stats().connections_now == 0, "the end of both")
        assert (2, 2) == (server.stats().accepts, server.stats().closes)


@pytest.mark.needs("INC")
def test_a_group_id_is_not_given_out_while_its_receive_is_armed() -> None:
    """An aborted connection keeps its id until the receive's last completion; then it is free."""
    own = ioxide.IncrementalConfig(max_connections=1, recv_slots=4, recv_buffer_size=1024)
    conns: list[ioxide.Connection] = []

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        await echo(conn)

    with serve(handler, incremental=own) as server:
        for round_number in range(10):
            with connect(server) as old:
                old.sendall(b"A" * 100)
                assert b"A" * 100 == read_exactly(old, 100)
                free: list[int] = []

                def cut(old: socket.socket = old, free: list[int] = free) -> None:
                    old.sendall(b"A" * 100)  # for a receive that is still armed
                    conns[-1].abort()
                    free.append(server.stats().groups_free_now)

                on_reactor(server.reactors[0], cut)
                assert [0] == free
                until(lambda: server.stats().groups_free_now == 1, "the id free")
            with connect(server) as new:
                new.sendall(b"B" * 100)
                assert b"B" * 100 == read_exactly(new, 100)
            until(lambda: server.stats().groups_free_now == 1, "the next id free")
            assert 2 * (round_number + 1) == server.stats().closes


def _target(number: int) -> str | None:
    try:
        return str(Path(f"/proc/self/fd/{number}").readlink())
    except OSError:
        return None


def test_a_failed_start_closes_nobody_elses_descriptor() -> None:
    """Neither a port in use nor a ring that is refused closes what was open, descriptor 0 least."""
    before, threads = open_fds(), threading.enumerate()
    stdin = _target(0)
    assert stdin is not None
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for _ in range(3):
            with pytest.raises(OSError, match="cannot listen"):
                ioxide.Server(echo, SMALL.replace(port=taken.getsockname()[1])).start()
            assert stdin == _target(0)
    old = os.environ.get("IOXIDE_CAPS")
    os.environ["IOXIDE_CAPS"] = "-send_zc"
    try:
        with pytest.raises(ioxide.UnsupportedError):
            ioxide.Server(echo, SMALL.replace(zero_copy_send=True, reactors=2)).start()
    finally:
        os.environ.pop("IOXIDE_CAPS")
        if old is not None:
            os.environ["IOXIDE_CAPS"] = old
    assert stdin == _target(0)
    until(lambda: open_fds() == before, "exactly the descriptors of before", timeout=TIMEOUT)
    assert [] == new_threads(threads)
