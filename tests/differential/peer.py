# SPDX-License-Identifier: MIT
"""The other end of the connections: plain sockets on a thread that no event loop knows.

The thread does what it is told while the caller waits, so that a step has been done when it
returns, and reads whatever comes in between.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import struct
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_RESET = struct.pack("ii", 1, 0)
_WAIT = 20.0


def pattern(start: int, size: int) -> bytes:
    """Bytes `start` to `start + size` of a stream in which no stretch of 251 repeats in step."""
    unit = bytes(range(251))
    first = start % 251
    return (unit * (size // 251 + 2))[first : first + size]


def name(error: BaseException) -> str:
    """An exception as it is compared: its class alone, because messages may differ."""
    return type(error).__name__


def listening(host: str) -> socket.socket:
    """A listening socket on a port of its own.

    Its protocol is named, which `socket.create_server()` does not do: asyncio sets TCP_NODELAY only
    on sockets that name it (`base_events._set_nodelay()`, 3.11 to 3.13). Without it the second of
    two small writes waits for an acknowledgement, up to 40 ms, and a peer that closes sees one.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, 0))
    sock.listen()
    return sock


class Peer:
    """One end; its methods run on the thread of its `Peers`."""

    def __init__(self, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        self.sock: socket.socket = sock
        self.address = sock.getsockname()
        self._selector = selector
        self._reading = True
        self._handshake = False
        self._out = bytearray()
        self._sent = 0
        self.count = 0
        self.crc = 0
        self.end: str | None = None
        self.send_error: str | None = None
        sock.setblocking(False)
        self._register()

    def _register(self) -> None:
        if self.sock.fileno() < 0:
            return
        with contextlib.suppress(KeyError):
            self._selector.unregister(self.sock)
        events = selectors.EVENT_WRITE if self._out and not self._handshake else 0
        if (self._reading or self._handshake) and self.end is None:
            events |= selectors.EVENT_READ
        if events:
            self._selector.register(self.sock, events, self)

    def ready(self) -> None:
        """Something came, or more can be sent."""
        if self._handshake:
            self._shake_hands()
        if not self._handshake:
            if self._reading:
                self._read()
            self._flush()
        self._register()

    def start_tls(self, context: ssl.SSLContext, *, server: bool) -> None:
        self._selector.unregister(self.sock)
        self.sock = context.wrap_socket(
            self.sock,
            server_side=server,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
            server_hostname=None if server else "localhost",
        )
        self._handshake = True
        self._shake_hands()
        self._register()

    def _shake_hands(self) -> None:
        assert isinstance(self.sock, ssl.SSLSocket)
        try:
            self.sock.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self.end = f"handshake: {name(error)}"
        self._handshake = False

    def _read(self) -> None:
        while self.end is None:
            try:
                data = self.sock.recv(1 << 18)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            except OSError as error:
                self.end = "RST" if isinstance(error, ConnectionResetError) else name(error)
                return
            if not data:
                self.end = "FIN"
                return
            self.count += len(data)
            self.crc = zlib.crc32(data, self.crc)

    def _flush(self) -> None:
        while self._out and self.send_error is None:
            try:
                sent = self.sock.send(self._out)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                self.send_error = name(error)
                self._out.clear()
                return
            del self._out[:sent]

    def send(self, size: int) -> None:
        if self.send_error is None:
            self._out += pattern(self._sent, size)
        self._sent += size
        if not self._handshake:
            self._flush()
        self._register()

    def trickle(self, count: int) -> None:
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            self.send(1)
            time.sleep(0.0005)

    def shut(self) -> None:
        # As far as TLS goes a half-close is its close_notify and a FIN, without waiting.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_WR)

    def close(self) -> None:
        if self.sock.fileno() >= 0:
            with contextlib.suppress(KeyError):
                self._selector.unregister(self.sock)
            self.end = self.end or "closed here"
            self.sock.close()

    def reset(self) -> None:
        if self.sock.fileno() >= 0:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.close()

    def reads(self, reading: bool) -> None:
        self._reading = reading
        if self.sock.fileno() >= 0 and self.end is None:
            if reading and not self._handshake:
                self._read()
            self._register()

    def seen(self) -> dict[str, Any]:
        """What this end saw."""
        return {
            "bytes": self.count,
            "crc": self.crc,
            "end": self.end,
            "send_error": self.send_error,
            "unsent": len(self._out) if self.end is None else 0,
        }


class Peers:
    """The thread, and all that it has opened."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._job: Callable[[], object] | None = None
        self._done = threading.Event()
        self._over = False
        self.all: list[Peer] = []
        self.activity = 0
        self._thread = threading.Thread(target=self._run, name="peers", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over:
            for key, _ in self._selector.select():
                if key.data is not None:
                    key.data.ready()
                    self.activity += 1
                    continue
                with contextlib.suppress(BlockingIOError):
                    self._wake.recv(64)
            if self._job is not None:
                job, self._job = self._job, None
                job()
                self._done.set()

    def call(self, job: Callable[[], T]) -> T:
        """Run `job` on the thread and wait; raises what it raised."""
        box: list[T] = []
        raised: list[BaseException] = []

        def work() -> None:
            try:
                box.append(job())
            except BaseException as error:
                raised.append(error)

        self._done.clear()
        self._job = work
        self._woken.send(b"x")
        if not self._done.wait(_WAIT):
            raise TimeoutError("the peers' thread does not answer")
        self.activity += 1
        if raised:
            raise raised[0]
        return box[0]

    def add(self, sock: socket.socket, context: ssl.SSLContext | None, *, server: bool) -> Peer:
        """A peer around a connected socket, with TLS if there is a context."""

        def make() -> Peer:
            peer = Peer(sock, self._selector)
            if context is not None:
                peer.start_tls(context, server=server)
            return peer

        peer = self.call(make)
        self.all.append(peer)
        return peer

    def close(self) -> None:
        """Close every peer and end the thread."""
        for peer in self.all:
            self.call(peer.close)
        self._over = True
        self._woken.send(b"x")
        self._thread.join(_WAIT)
        self._selector.close()
        self._wake.close()
        self._woken.close()
