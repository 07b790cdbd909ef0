# SPDX-License-Identifier: MIT
"""TCP streams of an asyncio loop as connections of its driver: where a socket becomes a transport.

asyncio makes transports at a few methods of ``asyncio.selector_events``; they are overridden here.
What the core cannot have goes on to asyncio's own: Unix sockets, datagrams, pipes, and connections
for which an incremental ring has no group left.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import weakref
from asyncio import constants
from collections.abc import Callable
from typing import Any

from ioxide.driver import Driver
from ioxide.listeners import Accepted, ReadyListener, RingListener, tls
from ioxide.transports import Transport

_MAX_LISTENERS = 32
"""Of the driver's 64 (IOX_MAX_LISTENERS in internal.h), those that create_server() may have; those
beyond are watched like a listener that the program gave."""


def _is_tcp(sock: socket.socket) -> bool:
    """Whether the core can have it; all else stays with asyncio's selector transports."""
    return (
        sock.family in (socket.AF_INET, socket.AF_INET6)
        and sock.type == socket.SOCK_STREAM
        and sock.proto in (0, socket.IPPROTO_TCP)
    )


class TcpLoop(asyncio.SelectorEventLoop):
    """The part of `ioxide.Loop` that is about TCP."""

    def __init__(self, driver: Driver, selector: selectors.BaseSelector) -> None:
        self.driver = driver
        self._own_servers: weakref.WeakSet[asyncio.Server] = weakref.WeakSet()
        # By the identity of the socket object, which each of them refers to.
        self._listeners: dict[int, RingListener | ReadyListener] = {}
        self.watched_listeners: dict[int, ReadyListener] = {}  # by descriptor; of ReadyListener
        super().__init__(selector)

    async def create_server(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: Any = None,
        port: Any = None,
        *,
        sock: socket.socket | None = None,
        start_serving: bool = True,
        **options: Any,
    ) -> asyncio.Server:
        """As asyncio's.

        The ring accepts on sockets that the loop makes here.  `sock` may be held by other
        processes, so it is only watched, and each time that it is ready one connection is taken.
        """
        server = await super().create_server(
            protocol_factory, host, port, sock=sock, start_serving=False, **options
        )
        if sock is None:
            self._own_servers.add(server)
        if start_serving:
            await server.start_serving()
        return server

    def _start_serving(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
    ) -> None:
        if not _is_tcp(sock):
            super()._start_serving(  # type: ignore[misc]
                protocol_factory,
                sock,
                sslcontext,
                server,
                backlog,
                ssl_handshake_timeout,
                ssl_shutdown_timeout,
            )
            return
        accepted = Accepted(
            self,
            protocol_factory,
            sock,
            sslcontext,
            server,
            {
                "ssl_handshake_timeout": ssl_handshake_timeout,
                "ssl_shutdown_timeout": ssl_shutdown_timeout,
            },
        )
        on_ring = sum(isinstance(each, RingListener) for each in self._listeners.values())
        kind = (
            RingListener
            if server in self._own_servers and on_ring < _MAX_LISTENERS
            else ReadyListener
        )
        self._listeners[id(sock)] = kind(self, sock, accepted)

    def _stop_serving(self, sock: socket.socket) -> None:
        listener = self._listeners.pop(id(sock), None)
        closed = sock.fileno() < 0
        if listener is not None:
            listener.stop()
        if listener is None or closed:
            super()._stop_serving(sock)  # type: ignore[misc]  # ValueError where it was closed before

    def _add_reader(self, fd: Any, callback: Callable[..., object], *args: Any) -> Any:
        self._forget_closed(fd)
        return super()._add_reader(fd, callback, *args)  # type: ignore[misc]

    def _add_writer(self, fd: Any, callback: Callable[..., object], *args: Any) -> Any:
        self._forget_closed(fd)
        return super()._add_writer(fd, callback, *args)  # type: ignore[misc]

    def _forget_closed(self, fd: Any) -> None:
        """Make way for who has the number now of a listener that its owner closed.

        The epoll instance has forgotten it by itself, the selector's table has not, and would
        change an entry there instead of registering the new file.
        """
        listener = self.watched_listeners.get(fd if isinstance(fd, int) else fd.fileno())
        if listener is not None and listener.closed:
            listener.forget()

    def _make_socket_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: Any = None,
    ) -> asyncio.Transport:
        transport = self._adopt(sock, protocol, waiter=waiter, extra=extra, server=server)
        if transport is None:
            return super()._make_socket_transport(  # type: ignore[misc,no-any-return]
                sock, protocol, waiter, extra=extra, server=server
            )
        return transport

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: asyncio.BaseProtocol,
        sslcontext: Any,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        **options: Any,
    ) -> asyncio.Transport:
        if not _is_tcp(rawsock):
            return super()._make_ssl_transport(  # type: ignore[misc,no-any-return]
                rawsock, protocol, sslcontext, waiter, extra=extra, server=server, **options
            )
        protocol = tls(self, protocol, sslcontext, waiter, **options)
        self._make_socket_transport(rawsock, protocol, extra=extra, server=server)
        return protocol._app_transport  # type: ignore[attr-defined,no-any-return]

    async def start_tls(self, transport: Any, *args: Any, **options: Any) -> Any:
        # TLS takes over from the protocol, which would never hear that it may write again.
        if isinstance(transport, Transport):
            transport.pause_reading()  # what comes next is the peer's handshake
            await transport.resumed()
        return await super().start_tls(transport, *args, **options)

    async def _sendfile_native(self, transp: Any, file: Any, offset: int, count: int | None) -> int:
        if isinstance(transp, Transport):
            raise asyncio.SendfileNotAvailableError("io_uring has no sendfile(2) for a socket")
        return await super()._sendfile_native(  # type: ignore[misc,no-any-return]
            transp, file, offset, count
        )

    def _adopt(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        **options: Any,
    ) -> Transport | None:
        """A transport on the ring for a connected socket, whose descriptor it takes over."""
        if not _is_tcp(sock):
            return None
        self._ensure_fd_no_transport(sock)  # type: ignore[attr-defined]
        connection = self.driver.adopt(sock.fileno())
        if connection is None:
            return None
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport = Transport(self, connection, protocol, sock, family=sock.family, **options)
        except BaseException:
            connection.abort()
            raise
        self.call_soon(transport.begin, context=transport.context)
        return transport
