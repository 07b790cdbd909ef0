# SPDX-License-Identifier: MIT
"""An `ioxide.Loop` as asyncio's loop: its servers, and what stays with asyncio's selector."""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
from pathlib import Path
from typing import IO

import pytest

import ioxide
from tests.support import MIB, TIMEOUT, Whole, noise
from tests.transports import Recorder, pair, run, the_loop, until


def test_a_closed_server_frees_its_port_at_once() -> None:
    """After Server.close() nobody gets in, what is open goes on, and the port can be had again."""

    async def main() -> None:
        loop = the_loop()
        protocol = Recorder()
        async with pair(protocol) as peer:
            server = await loop.create_server(Recorder, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()
            server.close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address, timeout=TIMEOUT)
            again = await loop.create_server(Recorder, *address)
            again.close()
            await server.wait_closed()
            await again.wait_closed()
            await peer.send(b"x")
            await until(lambda: protocol.data == b"x", "bytes of the open connection")

    run(main())


def test_a_server_closes_when_the_submission_queue_is_full_for_now() -> None:
    """What the ring cannot be asked at once it is asked again: nobody gets in afterwards."""

    async def main() -> None:
        driver = the_loop().driver
        unlisten, refusals = driver.unlisten, [1]

        def full_at_first(fd: int) -> None:
            if refusals:
                refusals.pop()
                raise BlockingIOError("the submission queue stays full: try again")
            unlisten(fd)

        driver.unlisten = full_at_first  # type: ignore[assignment]
        server = await asyncio.get_running_loop().create_server(Recorder, "127.0.0.1", 0)
        sock = server.sockets[0]
        address = sock.getsockname()
        server.close()
        await server.wait_closed()
        await until(lambda: sock.fileno() < 0, "the listener's end")
        assert [] == refusals
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=TIMEOUT)

    run(main())


def test_more_servers_than_the_ring_has_listeners() -> None:
    """Forty servers at once all accept; those beyond the ring's share are watched with epoll."""

    async def main() -> None:
        loop = the_loop()
        protocols: list[Recorder] = []

        class Listed(Recorder):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                protocols.append(self)

        servers = [await loop.create_server(Listed, "127.0.0.1", 0) for _ in range(40)]
        socks = [
            await asyncio.to_thread(
                socket.create_connection, server.sockets[0].getsockname(), TIMEOUT
            )
            for server in servers
        ]
        await until(lambda: len(protocols) == 40, "forty connections")
        stats = loop.driver.counters()
        assert (40, 8) == (stats.accepts, stats.accept_wakes)
        for server, sock, protocol in zip(servers, socks, protocols, strict=True):
            protocol.transport.abort()
            sock.close()
            server.close()
        await until(lambda: all("lost" in each.calls for each in protocols), "forty ends")

    run(main())


def test_what_is_not_tcp_stays_with_the_selector(tmp_path: Path) -> None:
    """Unix sockets, datagrams and a child's pipes work beside the ring."""

    async def main() -> None:
        loop = the_loop()

        async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert not isinstance(writer.transport, ioxide.Transport)
            writer.write((await reader.read(100)).upper())
            writer.close()

        path = str(tmp_path / "socket")
        async with await asyncio.start_unix_server(shout, path):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"unix")
            assert b"UNIX" == await reader.read()
            writer.close()
            await writer.wait_closed()

        got: asyncio.Future[bytes] = loop.create_future()

        class Datagrams(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, _addr: object) -> None:
                got.set_result(data)

        receiver, _ = await loop.create_datagram_endpoint(Datagrams, ("127.0.0.1", 0))
        sender, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=receiver.get_extra_info("sockname")
        )
        sender.sendto(b"datagram")
        assert b"datagram" == await got
        sender.close()
        receiver.close()

        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "print(input()[::-1])",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert b"dlihc\n" == (await child.communicate(b"child\n"))[0]
        assert 0 == child.returncode

        left, right = socket.socketpair()
        with left, right:
            left.setblocking(False)
            await loop.sock_sendall(left, b"plain")
            assert b"plain" == right.recv(5)
        assert 0 == loop.driver.counters().accepts + loop.driver.counters().adoptions

    run(main())


@pytest.mark.parametrize("fallback", [True, False])
def test_sendfile_sends_through_the_transport(fallback: bool) -> None:
    """loop.sendfile() sends a file, whether or not a copy is allowed, as asyncio's."""
    content = noise(2 * MIB, seed=12)

    async def main(file: IO[bytes]) -> None:
        loop = the_loop()
        protocol = Recorder()
        async with pair(protocol) as peer:
            reading = asyncio.create_task(peer.read(len(content)))
            sent = await loop.sendfile(protocol.transport, file, fallback=fallback)
            assert len(content) == sent
            assert Whole(content) == Whole(await reading)

    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        run(main(file))


def test_the_policy_makes_our_loops() -> None:
    """Where Python still has event loop policies, ours makes an ioxide.Loop."""
    if sys.version_info >= (3, 14):
        assert not hasattr(ioxide, "EventLoopPolicy")
        return
    asyncio.set_event_loop_policy(ioxide.EventLoopPolicy())
    try:
        loop = asyncio.new_event_loop()
        assert isinstance(loop, ioxide.Loop)
        loop.close()
    finally:
        asyncio.set_event_loop_policy(None)
