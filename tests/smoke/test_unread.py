# SPDX-License-Identifier: MIT
"""What a program does not read costs nobody else anything."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.support import unread
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
