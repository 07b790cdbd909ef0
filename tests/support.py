# SPDX-License-Identifier: MIT
"""What the reactor's tests share: a small server, blocking clients with timeouts, bounded waits."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import functools
import os
import random
import socket
import struct
import termios
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import ioxide

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

T = TypeVar("T")

MIB = 1 << 20

# Under emulation Python is some eleven times slower than here; a bound that is never reached costs
# nothing, so it is one number for every machine; only under a mutant (tests/mutants) is it reached.
TIMEOUT = float(os.environ.get("IOXIDE_TEST_TIMEOUT", "60"))

NARROW = 8192
"""A receive buffer that soon holds up who writes. Not 4096: on loopback the kernel then drops every
segment of a zero-copy send whose memory begins at the end of a page, for good (seen on 6.18, with
MSG_ZEROCOPY and no io_uring as well)."""

# Small rings, so that a whole suite fits an ordinary user's RLIMIT_MEMLOCK.
SMALL = ioxide.ServerConfig(
    port=0, ring_entries=64, cq_entries=1024, recv_slots=64, recv_buffer_size=4096
)


@contextmanager
def serve(handler: ioxide.Handler, **changes: object) -> Iterator[ioxide.Server]:
    """A running server on a free port with small rings."""
    with ioxide.Server(handler, SMALL.replace(**changes)) as server:
        yield server
    # The kernel never met memory that we had given up.  `make sanitize` makes sure it would have
    # noticed: pages that are gone stay without any right there.
    assert 0 == server.stats().memory_faults


class CutError(ConnectionResetError, AssertionError):
    """The server reset the connection, whichever call was the one to find out."""


class Client(socket.socket):
    """A socket whose failures are assertions that say what the server did.

    A reset is reported once by the kernel, to whichever call comes first, as ECONNRESET, EPIPE or
    ENOTCONN (tcp(7)); here every call from then on raises `CutError`.
    """

    cut = False

    def _told(self, late: str, call: Callable[[], T]) -> T:
        try:
            result = call()
        except TimeoutError:
            raise AssertionError(f"{late} within {TIMEOUT} s") from None
        except OSError as error:
            if error.errno not in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):
                raise
            self.cut = True
        if self.cut:
            raise CutError("the server cut the connection")
        return result

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        receive = super().recv
        return self._told("nothing came from the server", lambda: receive(bufsize, flags))

    def sendall(self, data: ReadableBuffer, flags: int = 0, /) -> None:
        send = super().sendall
        self._told("the server did not take everything", lambda: send(data, flags))

    def shutdown(self, how: int, /) -> None:
        shut = super().shutdown
        self._told("no shutdown", lambda: shut(how))


class Listening(Protocol):
    """Whatever has a port on loopback."""

    @property
    def port(self) -> int: ...


@contextmanager
def connect(server: Listening, *, rcvbuf: int | None = None) -> Iterator[socket.socket]:
    """A blocking client of `server` whose every call is bounded by `TIMEOUT`."""
    with Client() as client:
        if rcvbuf is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)  # before connect(2)
        client.settimeout(TIMEOUT)
        try:
            client.connect(("127.0.0.1", server.port))
        except ConnectionRefusedError:
            raise AssertionError("the server does not accept any more") from None
        yield client


def read_exactly(client: socket.socket, size: int) -> bytes:
    """`size` bytes from `client`; fewer only when the stream ends."""
    data = bytearray()
    while len(data) < size:
        part = client.recv(min(size - len(data), 1 << 20))
        if not part:
            break
        data += part
    return bytes(data)


def widen(client: socket.socket) -> None:
    """Take in larger pieces from now on, whatever small buffer `client` was connected with.

    Megabytes in pieces of two KiB are thousands of wake-ups, which an emulated processor pays
    dearly. Once the closed window has held up what it was to hold up, nothing is gained by it.
    """
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    # The window was clamped to the small buffer as the connection was made (tcp(7)).
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, 1 << 20)


def read_to_end(client: socket.socket) -> bytes:
    """Everything up to the end of the stream, in large pieces."""
    widen(client)
    return read_exactly(client, 1 << 62)


def held_and_shed(server: Listening, *, held: int, shed: int) -> None:
    """Fill an echo server's `held` places: `shed` more are closed, and all that are held live."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(held)]
        for client in clients:
            client.sendall(b"x")
            assert b"x" == read_exactly(client, 1)
        for _ in range(shed):
            with connect(server) as extra:
                assert b"" == extra.recv(1)
        for client in clients:
            client.sendall(b"y")
            assert b"y" == read_exactly(client, 1)


class Whole:
    """Bytes that are equal or not: a failure would spend minutes on showing how megabytes differ.

    Compared as they are. An emulated processor hashes megabytes slower than it sends them.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Whole) and self._data == other._data

    def __repr__(self) -> str:
        return f"<{len(self._data)} bytes, CRC-32 {zlib.crc32(self._data):08x}>"


NOISE_MAX = 10 * MIB


def noise(size: int, *, seed: int) -> bytes:
    """`size` bytes, at most `NOISE_MAX`, in which a piece lost, repeated or moved is seen.

    Cut out of one pool of random bytes, so that nothing in them comes twice, at a place that
    depends on the seed: making megabytes anew for each test is a second of an emulated processor.
    """
    assert size <= NOISE_MAX, f"{size} bytes of noise; there are {NOISE_MAX}"
    at = random.Random(seed).randrange(MIB)
    return _noise_pool()[at : at + size]


@functools.cache
def _noise_pool() -> bytes:
    return random.Random(104).randbytes(NOISE_MAX + MIB)


@contextmanager
def sending(
    client: socket.socket, parts: Iterable[bytes], *, sndbuf: int | None = None
) -> Iterator[threading.Thread]:
    """Another thread sends `parts` and then the end of the stream; it has ended after the block.

    Two sockets that tune themselves hold 10 MiB between them (the third values of `tcp_wmem` and
    `tcp_rmem`, 4 and 6 MiB, Documentation/networking/ip-sysctl.rst); `sndbuf` bounds the first.
    """
    if sndbuf is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)

    def send() -> None:
        with contextlib.suppress(CutError):  # every later call on `client` raises it again
            for part in parts:
                client.sendall(part)
            client.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    yield thread
    thread.join(TIMEOUT)
    assert not thread.is_alive(), "the server did not take everything"


def pieces(rng: random.Random, data: bytes) -> Iterator[bytes]:
    """`data` in pieces of 1 to 65,536 bytes."""
    at = 0
    while at < len(data):
        step = rng.randint(1, 65536)
        yield data[at : at + step]
        at += step


def until(condition: Callable[[], bool], what: str, *, timeout: float = TIMEOUT) -> None:
    """Wait until `condition()` holds; fails naming `what` when it does not within `timeout` s."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.002)


def unread(fd: int) -> int:
    """Bytes that have arrived at a socket and were not received from it (FIONREAD, tcp(7))."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))[0])


def wait_unread(fd: int, size: int) -> None:
    """Block until `size` bytes wait in the socket; on the reactor's thread this holds the tick."""
    until(lambda: unread(fd) >= size, f"{size} bytes waiting in fd {fd}")


def open_fds() -> int:
    """Descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def wait_fds(expected: int) -> None:
    """Wait until this process is back at `expected` descriptors."""
    until(lambda: open_fds() <= expected, f"back at {expected} descriptors, now {open_fds()}")


def new_threads(before: Iterable[threading.Thread]) -> list[str]:
    """Threads beyond those of `before`; a count would also tell of old ones that end meanwhile."""
    return [thread.name for thread in threading.enumerate() if thread not in before]


def on_reactor(reactor: ioxide.Reactor, call: Callable[[], None]) -> None:
    """Run `call` on the reactor's thread, wait for it, and raise here what it raised."""
    done = threading.Event()
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)
        finally:
            done.set()

    reactor.post(run)
    assert done.wait(TIMEOUT), "the posted call did not end"
    if raised:
        raise raised[0]


async def echo(conn: ioxide.Connection) -> None:
    """Send back what comes, at the peer's pace."""
    while data := await conn.recv():
        conn.write(data)
        await conn.flush()


async def answer_at_the_end(conn: ioxide.Connection) -> None:
    """Read up to the peer's FIN and answer then, in two writes."""
    body = b""
    while data := await conn.recv():
        body += data
    conn.write(b"got " + body)
    await conn.flush()
    conn.write(b", really")


class LateReader:
    """A handler that reads nothing before `release`, then all there is, and answers b"whole"."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.bodies: list[Whole] = []
        """What each connection had sent, in the order in which they ended."""

    async def __call__(self, conn: ioxide.Connection) -> None:
        await asyncio.to_thread(self.release.wait, TIMEOUT)
        body = bytearray()
        while data := await conn.recv():
            body += data
        self.bodies.append(Whole(body))
        conn.write(b"whole")


class Holder:
    """A handler that keeps the buffer of whoever sends b"keep", and answers everybody with b"k"."""

    def __init__(self) -> None:
        self.kept: list[memoryview] = []

    async def __call__(self, conn: ioxide.Connection) -> None:
        async with conn.read() as slices:
            if slices and bytes(slices[0]) == b"keep":
                self.kept.append(slices[0][:])
        conn.write(b"k")


def asleep(server: ioxide.Server) -> bool:
    """Whether every reactor's thread is blocked in io_uring_enter(2), with nothing left to do.

    From here on an enter is one that something has caused since; /proc says which system call a
    thread sleeps in, and "running" of one that does not (proc(5)).
    """
    calls = (
        Path(f"/proc/self/task/{reactor.native_id}/syscall").read_text().split()[0]
        for reactor in server.reactors
    )
    return all(call == "426" for call in calls)  # the number on every architecture


@functools.cache
def probed() -> ioxide.ProbeReport:
    """What this kernel has; asked once, because under emulation that takes seconds."""
    return ioxide.probe()


def at_rest(server: ioxide.Server) -> bool:
    """Whether the reactors make no enter for a moment: they sleep in the kernel."""
    enters = server.stats().enters
    threading.Event().wait(0.3)
    return server.stats().enters == enters
