# SPDX-License-Identifier: MIT
"""What ends, and what must not outlive it: sends cut short, parked reads, inherited descriptors."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios
from pathlib import Path

import ioxide
from tests.support import connect, echo, read_exactly, serve, until


def _unsent(fd: int) -> int:
    """Bytes in a socket's send queue (SIOCOUTQ, tcp(7))."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0" * 4))[0])


def test_a_partial_send_is_continued() -> None:
    """A SEND that took a part is followed by one for the rest, whose error the flush then raises.

    A socket that is shut down for writing ends the SEND behind a closed window with what it had
    taken, which is no error; only the next one gets EPIPE (6.18).
    """
    errors: list[type[OSError]] = []
    conns: list[ioxide.Connection] = []

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        conn.write(b"z" * (8 << 20))
        try:
            await conn.flush()
        except OSError as error:
            errors.append(type(error))

    with serve(handler) as server, connect(server, rcvbuf=4096):
        until(lambda: bool(conns) and _unsent(conns[0]._fd) > 0, "a SEND that took a part")
        with socket.socket(fileno=os.dup(conns[0]._fd)) as ours:
            ours.shutdown(socket.SHUT_WR)
        until(lambda: server.stats().sends == 2, "a SEND for what was left")
        until(lambda: len(errors) == 1, "the flush's end")
        assert [BrokenPipeError] == errors
        assert 1 == server.stats().partial_sends
        assert 0 < server.stats().bytes_sent < 8 << 20


def test_stop_ends_a_parked_read() -> None:
    """A handler parked in recv() gets b"" when the server stops; it is not cancelled."""
    ends: list[object] = []

    async def handler(conn: ioxide.Connection) -> None:
        conn.write(await conn.recv())
        try:
            ends.append(await conn.recv())
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    with serve(handler) as server, connect(server) as client:
        client.sendall(b"x")
        assert b"x" == read_exactly(client, 1)
        server.stop()
    assert [b""] == ends


def test_no_descriptor_is_inherited() -> None:
    """Ring, eventfd, epoll, listener and connections are all close-on-exec."""
    before = {entry.name for entry in Path("/proc/self/fd").iterdir()}
    with serve(echo, reactors=2) as server, connect(server) as client:
        client.sendall(b"x")
        assert b"x" == read_exactly(client, 1)
        opened = {entry.name for entry in Path("/proc/self/fd").iterdir()} - before
        kinds: dict[str, bool] = {}
        for name in opened:
            try:
                kind = Path(f"/proc/self/fd/{name}").readlink().name
                kinds[f"{name} {kind}"] = os.get_inheritable(int(name))
            except OSError:
                continue  # the descriptor that listed them
        # The client's and the accepted socket; of each reactor ring, eventfd, epoll and listener.
        assert len(kinds) >= 10
        assert [] == [kind for kind, inherited in kinds.items() if inherited]
