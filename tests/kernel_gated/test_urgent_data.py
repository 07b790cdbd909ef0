# SPDX-License-Identifier: MIT
"""A peer that sends urgent data while the reactor's thread gets signals (IOX-ERR-016).

The bytes behind the mark may wait for the next ones then; none is lost, and none out of place.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time

import pytest

import ioxide

pytestmark = [pytest.mark.kernel_gated, pytest.mark.timeout(60)]

CONNECTIONS = 100
BEFORE, AFTER = b"b" * 1500, b"a" * 699
PATIENCE_S = 0.1


class Counting(asyncio.Protocol):
    """Answers each piece with all that has come."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.got = transport, b""

    def data_received(self, data: bytes) -> None:
        self.got += data
        self.transport.write(b"%d," % len(self.got))


def _stream(address: tuple[str, int]) -> tuple[int, int]:
    """What the server has in the end, and after how many bytes more."""
    with socket.create_connection(address, timeout=PATIENCE_S) as peer:
        peer.sendall(BEFORE)
        peer.send(b"u", socket.MSG_OOB)
        peer.sendall(AFTER)
        said, more = b"", 0
        # Without SO_OOBINLINE the urgent byte is no part of the stream.
        while f"{len(BEFORE + AFTER) + more}" not in said.decode().split(",")[:-1]:
            try:
                said += peer.recv(65536)
            except TimeoutError:
                assert more < 20, said
                peer.sendall(b"m")
                more += 1
        return int(said.decode().split(",")[-2]), more


def test_bytes_behind_an_urgent_mark_come_with_the_next() -> None:
    """Whatever signals come meanwhile; where one delays them, the connection's next bytes bring
    them."""
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    ours = threading.get_ident()
    over = threading.Event()

    def disturb() -> None:
        while not over.is_set():
            signal.pthread_kill(ours, signal.SIGUSR1)
            time.sleep(0.0002)

    async def main() -> list[tuple[int, int]]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Counting, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        found = [await asyncio.to_thread(_stream, address) for _ in range(CONNECTIONS)]
        server.close()
        return found

    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        found = ioxide.run(main())
    finally:
        over.set()
        disturber.join()
        signal.signal(signal.SIGUSR1, before)
    assert len(seen) >= 5, "the control: signals did come"
    assert [len(BEFORE + AFTER) + more for _, more in found] == [got for got, _ in found]
