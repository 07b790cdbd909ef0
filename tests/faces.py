# SPDX-License-Identifier: MIT
"""One handler, two faces: `serve(face, handler)` runs it on a `Server` or on asyncio transports.

The transports' side is an ordinary asyncio server on a reactor's loop, whose protocol gives the
handler the few methods of a `Connection` that these tests use.  It reads only while the handler
does: between two ``recv()`` the transport is paused, as a connection's queue fills and pauses.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Protocol

import ioxide
from tests import support
from tests.support import SMALL, until


class Face(StrEnum):
    HANDLER = "handler"
    TRANSPORT = "transport"


FACES = tuple(Face)


class Stream(Protocol):
    """What a handler of these tests needs of its connection."""

    def recv(self, limit: int = ..., /) -> Awaitable[bytes]: ...
    def write(self, data: bytes, /) -> None: ...
    def flush(self) -> Awaitable[None]: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def fileno(self) -> int: ...


class Served(Protocol):
    """What these tests need of a server, and what `tests.support.connect()` does."""

    @property
    def port(self) -> int: ...
    @property
    def reactors(self) -> tuple[ioxide.Reactor, ...]: ...
    def stats(self) -> ioxide.Counters: ...


Handler = Callable[[Stream], Awaitable[object]]


class _StreamProtocol(asyncio.Protocol):
    def __init__(
        self,
        handler: Handler,
        tasks: set[asyncio.Task[None]],
        transports: set[ioxide.Transport],
    ) -> None:
        self._handler = handler
        self._tasks = tasks
        self._transports = transports
        self._data = bytearray()
        self._eof = False
        self._over: BaseException | None = None
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, ioxide.Transport), "not on the ring"
        self._transport = transport
        self._transports.add(transport)
        transport.set_write_buffer_limits(0)  # so that resume_writing() means: all was taken
        transport.pause_reading()
        task = asyncio.get_running_loop().create_task(self._run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        try:
            await self._handler(self)
        except ConnectionError:
            pass
        finally:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._data += data
        self._transport.pause_reading()
        self._changed.set()

    def eof_received(self) -> bool:
        self._eof = True
        self._changed.set()
        return True

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: BaseException | None) -> None:
        assert self._over is None, "connection_lost() came twice"
        self._transports.remove(self._transport)
        self._over = exc or ConnectionAbortedError("the transport was closed")
        self._changed.set()
        self._writable.set()

    # The handler's side

    async def recv(self, limit: int = 1 << 30, /) -> bytes:
        while not self._data and not self._eof and not self._over:
            self._changed.clear()
            self._transport.resume_reading()
            await self._changed.wait()
        if not self._data and not self._eof and self._over:
            if isinstance(self._over, ConnectionAbortedError):
                return b""
            raise self._over
        data = bytes(self._data[:limit])
        del self._data[:limit]
        return data

    def write(self, data: bytes, /) -> None:
        if self._over:
            raise self._over
        self._transport.write(data)

    async def flush(self) -> None:
        await self._writable.wait()
        if self._over:
            raise self._over

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def fileno(self) -> int:
        return int(self._transport.get_extra_info("socket").fileno())


class _TransportServer:
    """An asyncio server on the loop of a reactor that has no listener of its own."""

    def __init__(self, handler: Handler, config: ioxide.ServerConfig) -> None:
        async def nobody(connection: ioxide.Connection) -> None:
            raise AssertionError(f"{connection!r} came to the handler")

        self._handler = handler
        self._reactor = ioxide.Reactor(nobody, config, ())
        self._tasks: set[asyncio.Task[None]] = set()
        self._transports: set[ioxide.Transport] = set()
        self.port = 0

    @property
    def reactors(self) -> tuple[ioxide.Reactor, ...]:
        return (self._reactor,)

    def stats(self) -> ioxide.Counters:
        return self._reactor.stats()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _StreamProtocol(self._handler, self._tasks, self._transports), "127.0.0.1", 0
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        """As `Server.stop()`: nothing new, then what is open ends."""
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        while self._tasks:
            await asyncio.sleep(0.001)
        for transport in tuple(self._transports):
            transport.abort()
        while self._transports:  # connection_lost() takes each of them out
            await asyncio.sleep(0.001)

    def start(self) -> None:
        self._reactor.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._reactor.loop).result(support.TIMEOUT)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._reactor.loop).result(support.TIMEOUT)
        self._reactor.stop()
        assert self._reactor.join(support.TIMEOUT), "the reactor did not end"


@contextmanager
def serve(face: Face, handler: Handler, **changes: object) -> Iterator[Served]:
    """`handler` on a running server of that face, on a free port, with small rings."""
    if face is Face.HANDLER:
        with support.serve(handler, **changes) as server:
            yield server
        return
    other = _TransportServer(handler, SMALL.replace(**changes))
    other.start()
    try:
        yield other
    finally:
        other.stop()
    assert 0 == other.stats().memory_faults
    assert 0 == other.stats().wakeup_faults


def wait_paused(server: Served) -> int:
    """Wait until nothing more is received, because nobody reads; the bytes received so far."""
    still = [server.stats().bytes_received]

    def stopped() -> bool:
        threading.Event().wait(0.1)
        still.append(server.stats().bytes_received)
        return len(still) > 4 and len(set(still[-4:])) == 1

    until(stopped, "a receive that has paused")
    return still[-1]


async def echo(stream: Stream) -> None:
    """Send back what comes, at the peer's pace."""
    while data := await stream.recv():
        stream.write(data)
        await stream.flush()


class ImpatientEcho:
    """An echo whose every read is given up after a millisecond, and tried again."""

    def __init__(self) -> None:
        self.timeouts = 0

    async def __call__(self, stream: Stream) -> None:
        while True:
            try:
                data = await asyncio.wait_for(stream.recv(), 0.001)
            except TimeoutError:
                self.timeouts += 1
                continue
            if not data:
                return
            stream.write(data)

    def wait(self) -> None:
        """Until one more read was given up."""
        before = self.timeouts
        until(lambda: self.timeouts > before, "a read that was given up")
