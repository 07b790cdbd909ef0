# SPDX-License-Identifier: MIT
"""What a program does not read costs nobody else anything."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import ExitStack

import pytest

import ioxide
from tests import support
from tests.support import (
    connect,
    echo,
    on_reactor,
    read_exactly,
    read_to_end,
    serve,
    unread,
)
from tests.transports import Recorder, run, the_loop, until


class PausedAtOnce(Recorder):
    """Pauses in connection_made(), as a proxy does until its other side is connected."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()


@pytest.mark.parametrize("accepted", [True, False], ids=["accepted", "connected"])
def test_a_pause_in_connection_made_leaves_all_bytes_in_the_socket(accepted: bool) -> None:
    """A transport that is paused before it has received anything receives nothing."""

    async def main() -> None:
        protocol = PausedAtOnce()
        loop = the_loop()
        if accepted:
            server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
            peer = socket.create_connection(server.sockets[0].getsockname())
        else:
            listener = socket.create_server(("127.0.0.1", 0))
            await loop.create_connection(lambda: protocol, *listener.getsockname())
            peer, _ = listener.accept()
        with peer:
            peer.sendall(b"early")
            await until(lambda: "made" in protocol.calls, "connection_made()")
            fd = protocol.transport.get_extra_info("socket").fileno()
            stats = loop.driver.counters
            await until(lambda: unread(fd) == 5 or stats().bytes_received, "the bytes")
            for _ in range(20):
                await asyncio.sleep(0.005)
            assert 0 == stats().bytes_received, "a paused transport received"
            assert not protocol.data
            protocol.transport.resume_reading()
            await until(lambda: bytes(protocol.data) == b"early", "the bytes after the pause")
            protocol.transport.close()
            await until(lambda: "lost" in protocol.calls, "connection_lost()")
        if accepted:
            server.close()
        else:
            listener.close()

    run(main())


def _copied(server: ioxide.Server) -> tuple[int, int, int]:
    stats = server.stats()
    return stats.buffers_held_now, stats.recv_copied_bytes_now, stats.slices_lent_now


def _serves(server: ioxide.Server, rounds: int = 20) -> None:
    """A connection beside the others is answered, request after request."""
    with connect(server) as busy:
        for _ in range(rounds):
            busy.sendall(b"echo")
            assert b"echo" == read_exactly(busy, 4)


@pytest.mark.parametrize("lend", [False, True], ids=["recv", "read"])
def test_unread_bytes_leave_buffers_to_others(lend: bool) -> None:
    """Handlers that do not read hold more runs than there are buffers, and nobody waits for one."""
    handlers, rounds = 20, 10
    fds: list[int] = []
    release = threading.Event()

    async def handler(conn: ioxide.Connection) -> None:
        if len(fds) == handlers:
            await echo(conn)
            return
        fds.append(conn.fileno())
        while not release.is_set():
            await asyncio.sleep(0.005)
        answer = b""
        while len(answer) < rounds:
            if lend:
                async with conn.read() as slices:
                    answer += b"".join(slices)
            else:
                answer += await conn.recv()
        conn.write(answer)

    with serve(handler, recv_slots=64) as server, ExitStack() as stack:
        clients = []
        for _ in range(handlers):
            clients.append(stack.enter_context(connect(server)))
            support.until(lambda: len(fds) == len(clients), "a handler")
        for number in range(1, rounds + 1):
            for client in clients:
                client.sendall(bytes([number]))

            def arrived(sent: int = number * handlers) -> bool:
                return server.stats().bytes_received + sum(map(unread, fds)) == sent

            support.until(arrived, "the bytes")
            for _ in range(4):  # and every receive that is armed has taken them
                on_reactor(server.reactors[0], lambda: None)
        _serves(server)
        stats = server.stats()
        assert stats.recv_copies > 0
        assert stats.recv_pauses > 0, "who had its bytes copied went on to receive"
        # On a busy machine a batch may bring more than the window of provided buffers holds; who
        # found none then is armed again with the next tick.
        assert 0 == stats.starved_now
        assert 0 < stats.recv_copied_bytes_now < handlers * rounds
        release.set()
        for client in clients:
            assert bytes(range(1, rounds + 1)) == read_to_end(client)
        support.until(lambda: _copied(server) == (0, 0, 0), "all of the memory back")


def test_lent_slices_leave_buffers_to_others() -> None:
    """Views that are kept of every message hold three quarters of the buffers, and then copies."""
    kept: list[memoryview] = []

    async def handler(conn: ioxide.Connection) -> None:
        while True:
            async with conn.read() as slices:
                if not slices:
                    return
                if bytes(slices[0][:1]) != b"e":
                    kept.extend(part[:] for part in slices)
                conn.write(b"".join(slices))

    with serve(handler, recv_slots=64) as server:
        with connect(server) as client:
            for number in range(100):
                client.sendall(b"%04d" % number)
                assert b"%04d" % number == read_exactly(client, 4)
            _serves(server)
            assert 0 == server.stats().recv_enobufs
            assert (48, 4 * 52, 100) == _copied(server)
            assert [b"%04d" % number for number in range(100)] == [bytes(part) for part in kept]
        while kept:
            kept.pop().release()
        on_reactor(server.reactors[0], lambda: None)  # nobody waits for them: with the next tick
        support.until(lambda: _copied(server) == (0, 0, 0), "all of the memory back")


def test_who_reads_at_once_is_not_paused() -> None:
    """A message larger than recv_queue_bytes, read in the tick that brought it, costs no pause."""
    with serve(echo, recv_queue_bytes=64) as server, connect(server) as client:
        for _ in range(10):
            client.sendall(b"x" * 1000)
            assert b"x" * 1000 == read_exactly(client, 1000)
        assert (0, 0) == (server.stats().recv_pauses, server.stats().recv_rearms)
