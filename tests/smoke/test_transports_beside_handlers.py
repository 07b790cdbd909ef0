# SPDX-License-Identifier: MIT
"""Transports and handlers on one reactor: clocks, cap and stop are the handlers' alone."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

import ioxide
from tests import support
from tests.faces import Face, Stream, serve
from tests.support import MIB, TIMEOUT, connect, on_reactor, read_exactly, read_to_end, until


@pytest.mark.issue(97)
def test_clocks_are_a_handlers_alone() -> None:
    """The same configuration cuts an idle handler and a stalled flush off, and no transport."""

    async def stall(stream: Stream) -> None:
        if await stream.recv() == b"write":
            stream.write(b"z" * (8 * MIB))
            await stream.flush()
        await stream.recv()

    clocks = {"read_timeout_ms": 300, "send_timeout_ms": 300}
    with (
        serve(Face.TRANSPORT, stall, **clocks) as transports,
        connect(transports) as idle,
        connect(transports, rcvbuf=4096) as stalled,
    ):
        idle.sendall(b"read")
        stalled.sendall(b"write")
        until(lambda: transports.stats().bytes_received == 9, "both requests")
        until(lambda: transports.stats().sends == 1, "a SEND behind a closed window")
        # The same again for handlers, later: when their clocks have run out, so would the others'.
        with (
            serve(Face.HANDLER, stall, **clocks) as handlers,
            connect(handlers) as cut_idle,
            connect(handlers, rcvbuf=4096) as cut_stalled,
        ):
            cut_idle.sendall(b"read")
            cut_stalled.sendall(b"write")
            until(lambda: handlers.stats().read_timeouts == 1, "the read clock")
            until(lambda: handlers.stats().send_timeouts == 1, "the send clock")
            for client in (cut_idle, cut_stalled):
                with pytest.raises(ConnectionResetError):
                    read_to_end(client)
        on_reactor(transports.reactors[0], lambda: None)  # a tick, which looks at the clocks
        stats = transports.stats()
        assert (0, 0, 2) == (stats.read_timeouts, stats.send_timeouts, stats.connections_now)
        idle.sendall(b"done")
        assert b"" == read_to_end(idle)
        assert b"z" * 4096 == read_exactly(stalled, 4096)


@pytest.mark.issue(97)
def test_transports_do_not_count_for_the_cap() -> None:
    """A handler that opens connections of its own takes no place from its server's clients."""

    async def handler(conn: ioxide.Connection) -> None:
        port = conn.sockname[1]
        if await conn.recv() == b"open":
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", other.port)
                writers.append(writer)
                readers.append(reader)
        conn.write(b"%d" % port)
        await conn.recv()
        for writer in writers:
            writer.close()

    writers: list[asyncio.StreamWriter] = []
    readers: list[asyncio.StreamReader] = []
    with (
        support.serve(support.echo) as other,
        support.serve(handler, max_connections=2) as server,
        connect(server) as one,
    ):
        one.sendall(b"open")
        assert b"%d" % server.port == one.recv(10)
        assert (3, 4) == (server.stats().adoptions, server.stats().connections_now)
        with connect(server) as two:
            until(lambda: server.stats().accepts == 2, "a place for the second client")
            two.sendall(b"count")
            assert b"%d" % server.port == two.recv(10)
            with connect(server) as three:
                assert b"" == read_to_end(three)
        assert 1 == server.stats().accepts_shed
        one.shutdown(socket.SHUT_WR)
        until(lambda: server.stats().connections_now == 0, "all ends")


def test_stop_leaves_a_handlers_own_connections_to_it() -> None:
    """Server.stop() ends its clients' streams; what a handler has opened still answers it."""
    answers: list[bytes] = []
    opened = threading.Event()

    async def handler(conn: ioxide.Connection) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", other.port)
        opened.set()
        assert b"" == await conn.recv()  # the server stops
        writer.write(b"still there?")
        answers.append(await reader.read(100))
        writer.close()
        await writer.wait_closed()

    with support.serve(support.echo) as other:
        with support.serve(handler) as server, connect(server):
            assert opened.wait(TIMEOUT)
            server.stop()
        assert 0 == server.stats().handler_faults
    assert [b"still there?"] == answers
