# SPDX-License-Identifier: MIT
"""A peer that sends urgent data while something is pending for the reactor's thread (IOX-ERR-016).

Where a receive meets the mark with bytes before it, the reactor arms it again. Where it begins at
the mark, the bytes behind it may wait for the next ones; none is lost, and none out of place.
"""

from __future__ import annotations

import asyncio
import select
import signal
import socket
import threading
import time
from contextlib import ExitStack

import pytest

import ioxide
from ioxide._probe.rawring import RawRing
from ioxide._ring import lib

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


class Taking(asyncio.Protocol):
    """Counts what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.got = transport, 0

    def data_received(self, data: bytes) -> None:
        self.got += len(data)


class Pending:
    """Makes a task work pending for this thread within the enter that sends a byte.

    A poll of another ring of this thread is woken by that byte, and io_uring notifies the thread as
    if by a signal (TWA_SIGNAL), which signal_pending() counts.
    """

    def __init__(self, ring: RawRing, transport: asyncio.Transport, peer: socket.socket) -> None:
        self._ring, self._transport, self._peer = ring, transport, peer

    def begin(self) -> None:
        """In the next enter."""
        self._ring.push(lib.IOX_PROBE_OP_POLL_ADD, fd=self._peer.fileno(), op_flags=select.POLLIN)
        assert self._ring.enter() == 1
        self._transport.write(b"x")

    def end(self) -> None:
        """After that enter."""
        assert self._peer.recv(16), "the control: the byte was sent"
        self._ring.reap()


def _streams(connections: int, enters: int) -> tuple[bool, bool, int]:
    """Peers send up to a mark and behind it; something is pending in so many enters that follow.

    :return: whether all came by itself, whether it came with the next byte, and how often a receive
        was armed again for the mark.
    """

    async def main() -> tuple[bool, bool, int]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ioxide.Loop)
        made: list[Taking] = []

        def protocol() -> Taking:
            made.append(Taking())
            return made[-1]

        async def come(bytes: int) -> bool:
            """Whether each connection has so many before patience runs out."""
            deadline = time.monotonic() + 5.0
            while (got := [one.got for one in made]) != [bytes] * connections:
                if time.monotonic() > deadline:
                    return False
                assert max(got, default=0) <= bytes
                await asyncio.sleep(0.005)
            return True

        with ExitStack() as stack:
            server = await loop.create_server(protocol, "127.0.0.1", 0)
            stack.callback(server.close)
            peers: list[socket.socket] = []
            while len(peers) < connections:
                peers.append(socket.create_connection(server.sockets[0].getsockname()))
                stack.enter_context(peers[-1])
                while len(made) < len(peers):
                    await asyncio.sleep(0.001)
            # The first to be armed again: what its byte makes pending, the others meet.
            pending = Pending(stack.enter_context(RawRing()), made[0].transport, peers[0])
            for peer in peers:
                peer.sendall(BEFORE)
                peer.send(b"u", socket.MSG_OOB)
                peer.sendall(AFTER)
            for _ in range(enters):
                pending.begin()
                await asyncio.sleep(0)
                pending.end()
            first = await come(len(BEFORE + AFTER))
            for peer in peers:
                peer.sendall(b"m")
            second = await come(len(BEFORE + AFTER) + 1)
            return first, second, loop.driver.counters().recv_marks

    return ioxide.run(main())


@pytest.mark.parametrize(
    ("enters", "marks"),
    [
        pytest.param(1, (0, 8), id="once"),
        # The receive that is armed again meets the mark with something pending, too, but for the
        # one whose own byte that is. On 6.1 a receive that begins at the mark has no such trouble.
        pytest.param(6, (0, 8, 15), id="again"),
    ],
)
def test_bytes_behind_a_mark_come_by_themselves(enters: int, marks: tuple[int, ...]) -> None:
    """Where bytes before the mark came in the same enter, what is pending in it delays nothing."""
    first, second, armed_again = _streams(8, enters)
    assert (True, True) == (first, second)
    # None on a kernel that has not the erratum.
    assert armed_again in marks
