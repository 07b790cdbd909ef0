# SPDX-License-Identifier: MIT
"""A peer that sends urgent data while something is pending for the reactor's thread (IOX-ERR-016).

Where a receive meets the mark with bytes before it, the reactor arms it again; where it begins at
the mark, when a signal has interrupted a wait. Otherwise the bytes behind the mark may wait for the
next ones; none is lost, and none out of place.
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


class Streams:
    """Connections of a server on this loop, and their peers."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.made: list[Taking] = []
        self.peers: list[socket.socket] = []

    async def open(self, connections: int) -> None:
        """Open so many."""

        def protocol() -> Taking:
            self.made.append(Taking())
            return self.made[-1]

        loop = asyncio.get_running_loop()
        server = await loop.create_server(protocol, "127.0.0.1", 0)
        self._stack.callback(server.close)
        while len(self.peers) < connections:
            self.peers.append(socket.create_connection(server.sockets[0].getsockname()))
            self._stack.enter_context(self.peers[-1])
            while len(self.made) < len(self.peers):
                await asyncio.sleep(0.001)

    async def come(self, bytes: int, patience: float = 5.0) -> bool:
        """Whether each connection has so many before patience runs out."""
        deadline = time.monotonic() + patience
        while (got := [one.got for one in self.made]) != [bytes] * len(self.peers):
            if time.monotonic() > deadline:
                return False
            assert max(got, default=0) <= bytes
            await asyncio.sleep(0.005)
        return True

    def send(self, data: bytes) -> None:
        """Each peer sends this."""
        for peer in self.peers:
            peer.sendall(data)

    def send_behind_a_mark(self) -> None:
        """Each peer sends an urgent byte, and more."""
        for peer in self.peers:
            peer.send(b"u", socket.MSG_OOB)
            peer.sendall(AFTER)

    async def with_something_pending(self) -> None:
        """One enter with something pending."""
        # The first connection is the first to be armed again: what its byte makes pending, the
        # others meet.
        with RawRing() as ring:
            pending = Pending(ring, self.made[0].transport, self.peers[0])
            pending.begin()
            await asyncio.sleep(0)
            pending.end()


def _marks() -> int:
    """How often a receive was armed again for a mark."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ioxide.Loop)
    return loop.driver.counters().recv_marks


CHECKS = 8 + 8
"""How often at most a receive is armed again before bytes come: MARK_TRIES in receive.c behind a
completion, and as many times after interrupted waits."""


@pytest.mark.parametrize(
    "enters",
    [
        pytest.param(1, id="once"),
        # The receive that is armed again meets the mark with something pending, too, but for the
        # one whose own byte that is. On 6.1 a receive that begins at the mark has no such trouble.
        pytest.param(6, id="again"),
    ],
)
def test_bytes_behind_a_mark_come_by_themselves(enters: int) -> None:
    """Where bytes before the mark came in the same enter, what is pending in it delays nothing."""

    async def main() -> tuple[bool, bool, int]:
        with ExitStack() as stack:
            streams = Streams(stack)
            await streams.open(8)
            for peer in streams.peers:
                peer.sendall(BEFORE)
                peer.send(b"u", socket.MSG_OOB)
                peer.sendall(AFTER)
            for _ in range(enters):
                await streams.with_something_pending()
            first = await streams.come(len(BEFORE + AFTER))
            streams.send(b"m")
            second = await streams.come(len(BEFORE + AFTER) + 1)
            return first, second, _marks()

    first, second, armed_again = ioxide.run(main())
    assert (True, True) == (first, second)
    # None on a kernel that has not the erratum. Where it shows, all eight meet the mark once. How
    # often after that is up to the kernel, which may run what the byte wakes a little later: in six
    # enters it is 15 times mostly, and was 19 to 28 in 10 of 60 trials in a busy guest (6.11.11).
    assert armed_again == 0 or 8 <= armed_again <= 8 * CHECKS


def test_bytes_that_begin_at_a_mark_come_with_a_signal() -> None:
    """Nothing is posted for such a receive. A signal interrupts the wait, and then all are checked;
    the next signal finds none of them at a mark."""

    async def main() -> tuple[bool, int]:
        reactor = threading.get_ident()

        async def interrupted() -> None:
            # In the middle of a long wait: at its end a signal looks like the timeout.
            threading.Timer(0.02, signal.pthread_kill, (reactor, signal.SIGUSR1)).start()
            await asyncio.sleep(0.2)

        with ExitStack() as stack:
            streams = Streams(stack)
            await streams.open(8)
            streams.send(BEFORE)
            assert await streams.come(len(BEFORE))
            streams.send_behind_a_mark()
            await streams.with_something_pending()
            stuck = not await streams.come(len(BEFORE + AFTER), 1.0)
            assert _marks() == 0

            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: None)
            await interrupted()
            assert await streams.come(len(BEFORE + AFTER), 0.0), "the bytes behind the mark"
            marks = _marks()
            await interrupted()
            assert marks == _marks()
            return stuck, marks

    stuck, marks = ioxide.run(main())
    # What is pending is of the first one's own byte: its receive may come to the mark later.
    assert marks in ((7, 8) if stuck else (0,))  # none on a kernel that has not the erratum
