# SPDX-License-Identifier: MIT
"""TCP streams of an asyncio loop as connections of its driver: where a socket becomes a transport.

asyncio makes transports at a few methods of ``asyncio.selector_events``; they are overridden here.
What the core cannot have goes on to asyncio's own: Unix sockets, datagrams, pipes, listeners
beyond `_MAX_LISTENERS`, and connections for which an incremental ring has no group left.
"""

from __future__ import annotations

import asyncio
import contextvars
import selectors
import socket
from asyncio import constants, sslproto
from collections.abc import Callable, Mapping
from typing import Any

from ioxide.connection import Connection
from ioxide.driver import Driver
from ioxide.transports import Transport

_MAX_LISTENERS = 32
"""Of the driver's 64 (IOX_MAX_LISTENERS in internal.h), those that create_server() may have."""

_tls: Any = sslproto.SSLProtocol  # whose options typeshed knows too strictly


def _is_tcp(sock: socket.socket) -> bool:
    """Whether the core can have it; all else stays with asyncio's selector transports."""
    return (
        sock.family in (socket.AF_INET, socket.AF_INET6)
        and sock.type == socket.SOCK_STREAM
        and sock.proto in (0, socket.IPPROTO_TCP)
    )


class _Accepted:
    """What becomes of the connections of one listening socket of ``create_server()``."""

    def __init__(
        self,
        loop: TcpLoop,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        family: int,
        sslcontext: Any,
        server: Any,
        timeouts: Mapping[str, float | None],
    ) -> None:
        self._loop = loop
        self._protocol_factory = protocol_factory
        self._family = family
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
                protocol = _tls(
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
            connection.abort()
            raise
        except BaseException as error:
            connection.abort()
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


class TcpLoop(asyncio.SelectorEventLoop):
    """The part of `ioxide.Loop` that is about TCP."""

    def __init__(self, driver: Driver, selector: selectors.BaseSelector) -> None:
        self.driver = driver
        self._ring_listeners: set[int] = set()
        super().__init__(selector)

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
        if not _is_tcp(sock) or len(self._ring_listeners) >= _MAX_LISTENERS:
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
        # asyncio sets it on each connection; accepted ones inherit it from their listener.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted = _Accepted(
            self,
            protocol_factory,
            sock.family,
            sslcontext,
            server,
            {
                "ssl_handshake_timeout": ssl_handshake_timeout,
                "ssl_shutdown_timeout": ssl_shutdown_timeout,
            },
        )
        self.driver.listen(sock.fileno(), accepted)
        self._ring_listeners.add(sock.fileno())

    def _stop_serving(self, sock: socket.socket) -> None:
        if sock.fileno() not in self._ring_listeners:
            super()._stop_serving(sock)  # type: ignore[misc]
            return
        self._ring_listeners.remove(sock.fileno())
        self._unlisten(sock)

    def _unlisten(self, sock: socket.socket) -> None:
        if not self.driver.closed:
            try:
                self.driver.unlisten(sock.fileno())
            except BlockingIOError:  # the submission queue stays full for now
                self.call_later(0.001, self._unlisten, sock)
                return
        sock.close()

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
        tls: Any = _tls(self, protocol, sslcontext, waiter, **options)
        self._make_socket_transport(rawsock, tls, extra=extra, server=server)
        return tls._app_transport  # type: ignore[no-any-return]

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
