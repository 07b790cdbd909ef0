# SPDX-License-Identifier: MIT
"""Listening sockets of ``create_server()``, and what is done with the connections they accept.

The ring accepts on a socket that the loop made itself, as a multishot: `RingListener`.  A socket
that the program gave may be held by other processes, and its owner may close it at any time, so the
ring must neither keep it open nor empty its backlog.  `ReadyListener` watches it with the loop's
epoll instance, which forgets a closed socket by itself, and takes one connection for each wake.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import socket
from asyncio import constants, sslproto
from collections.abc import Callable, Mapping
from typing import Any

from ioxide._asyncio.transports import Transport
from ioxide._driver.connection import Connection
from ioxide._driver.driver import Driver

tls: Any = sslproto.SSLProtocol  # whose options typeshed knows too strictly

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Accepted:
    """Makes transports of the connections that one listening socket accepts."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        sslcontext: Any,
        server: Any,
        timeouts: Mapping[str, float | None],
    ) -> None:
        self._loop = loop
        self._protocol_factory = protocol_factory
        self._sock = sock
        self._family = int(sock.family)
        self._sslcontext = sslcontext
        self._server = server
        self._timeouts = timeouts
        self._context = contextvars.copy_context()

    def __call__(self, connection: Connection) -> None:
        context = self._context.copy()
        context.run(self._take, connection, context)

    def _take(self, connection: Connection, context: contextvars.Context) -> None:
        try:
            protocol = self._protocol_factory()
            if self._sslcontext is not None:
                waiter = self._loop.create_future()
                protocol = tls(
                    self._loop,
                    protocol,
                    self._sslcontext,
                    waiter,
                    server_side=True,
                    **self._timeouts,
                )
            transport = Transport(
                self._loop,
                connection,
                protocol,
                family=self._family,
                server=self._server,
                context=context,
            )
        except (SystemExit, KeyboardInterrupt):
            connection._drop()  # asyncio leaves the socket to the collector
            raise
        except BaseException as error:
            connection._drop()
            self._loop.call_exception_handler(
                {
                    "message": "Error on transport creation for incoming connection",
                    "exception": error,
                }
            )
            return
        if self._sslcontext is not None:
            waiter.add_done_callback(lambda _: self._shaken_hands(waiter, transport, protocol))
        transport.begin()

    def failed(self, error: OSError) -> None:
        """Tell the loop's exception handler of a failed accept(2), in asyncio's words."""
        resources = error.errno in _OUT_OF_RESOURCES
        self._loop.call_exception_handler(
            {
                "message": f"socket.accept() {'out of system resource' if resources else 'failed'}",
                "exception": error,
                "socket": asyncio.trsock.TransportSocket(self._sock),
            }
        )

    def _shaken_hands(
        self,
        waiter: asyncio.Future[None],
        transport: Transport,
        protocol: asyncio.BaseProtocol,
    ) -> None:
        if waiter.cancelled() or waiter.exception() is None:
            return
        transport.close()
        if self._loop.get_debug():
            self._loop.call_exception_handler(
                {
                    "message": "Error on transport creation for incoming connection",
                    "exception": waiter.exception(),
                    "transport": transport,
                    "protocol": protocol,
                }
            )


class RingListener:
    """A listener that only the loop has; the ring accepts all its connections.

    Raises `RuntimeError` when the driver has no room for one more.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        driver: Driver,
        sock: socket.socket,
        accepted: Accepted,
    ) -> None:
        self._loop = loop
        self._driver = driver
        self._sock = sock
        self._fd = sock.fileno()
        # asyncio sets it on each connection; accepted ones inherit it from their listener.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        driver.listen(self._fd, accepted, accepted.failed)

    def stop(self) -> None:
        """Take nothing any more, and close the socket."""
        driver = self._driver
        if not driver.closed:
            try:
                driver.unlisten(self._fd)
            except BlockingIOError:  # the submission queue stays full for now
                self._loop.call_later(0.001, self.stop)
                return
            if not driver.here and not driver.forked:
                # Its ring holds the socket, which nobody else has, until the loop is closed.
                with contextlib.suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


class ReadyListener:
    """A listener that others may hold; one connection is taken each time that it is ready.

    So a busy process does not keep connections from others.  The descriptor belongs to the socket's
    owner, and is used only while the socket object still has it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        driver: Driver,
        sock: socket.socket,
        accepted: Accepted,
    ) -> None:
        self._driver = driver
        self._loop: Any = loop  # whose _add_reader() and _remove_reader() typeshed does not know
        self._sock = sock
        self._accepted = accepted
        self._fd = sock.fileno()
        self._handle: asyncio.Handle | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._watch()

    @property
    def closed(self) -> bool:
        """Whether its owner has closed or detached the socket object."""
        return self._sock.fileno() != self._fd

    def stop(self) -> None:
        """Take nothing any more, and close the socket."""
        self.forget()
        self._sock.close()

    def forget(self) -> None:
        """Stop watching the descriptor, unless its number is another file's by now."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        handle, self._handle = self._handle, None
        if handle is None or self._loop.is_closed():
            return
        key = self._loop._selector.get_map().get(self._fd)
        if key is not None and key.data[0] is handle:  # else add_reader() was called over it
            self._loop._remove_reader(self._fd)

    def _watch(self) -> None:
        self._rest = None
        if not self.closed:
            self._handle = self._loop._add_reader(self._fd, self._ready)

    def _ready(self) -> None:
        if self.closed:
            self.forget()  # a process that shares it keeps it open, and so the epoll instance
            return
        try:
            connection = self._driver.accept(self._fd)
        except OSError as error:
            # It stays ready: watched at once the loop would spin.
            self.forget()
            self._rest = self._loop.call_later(constants.ACCEPT_RETRY_DELAY, self._watch)
            self._accepted.failed(error)
            return
        if connection is not None:
            self._accepted(connection)
