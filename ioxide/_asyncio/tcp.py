# SPDX-License-Identifier: MIT
"""TCP streams of an asyncio loop as connections of its driver: where a socket becomes a transport.

asyncio makes transports at a few methods of ``asyncio.selector_events``; they are overridden here.
asyncio's own transports are used for everything else: Unix sockets, datagrams, pipes, and
connections for which an incremental ring has no group left.
"""

from __future__ import annotations

import asyncio
import io
import selectors
import socket
import weakref
from asyncio import constants
from collections.abc import Callable
from typing import Any

from ioxide._asyncio.listeners import Accepted, ReadyListener, RingListener, tls
from ioxide._asyncio.sendfile import sole_writer
from ioxide._asyncio.transports import Transport
from ioxide._driver.driver import Driver

_MAX_LISTENERS = 32
"""Of the driver's 64 (IOX_MAX_LISTENERS in listener_state.h), those that create_server() may have;
those beyond are watched like a listener that the program gave."""


def _is_tcp(sock: socket.socket) -> bool:
    """Whether the core can use it; asyncio's selector transports are for all others."""
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
        self._connected: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        super().__init__(selector)

    def set_debug(self, enabled: bool) -> None:
        """As asyncio's; it applies to open transports, too."""
        super().set_debug(enabled)
        for transport in tuple(getattr(self, "_transports", {}).values()):  # none in __init__()
            if isinstance(transport, Transport) and not transport._conn_lost:
                transport.set_protocol(transport.get_protocol())

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
        self._listeners[id(sock)] = kind(self, self.driver, sock, accepted)

    def _stop_serving(self, sock: socket.socket) -> None:
        listener = self._listeners.pop(id(sock), None)
        closed = sock.fileno() < 0
        if listener is not None:
            listener.stop()
        if listener is None or closed:
            super()._stop_serving(sock)  # type: ignore[misc]  # ValueError where it was closed before

    async def _connect_sock(self, *args: Any, **options: Any) -> socket.socket:
        sock: socket.socket = await super()._connect_sock(*args, **options)  # type: ignore[misc]
        self._connected.add(sock)
        return sock

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
        # TLS replaces the protocol, whose resume_writing() would then never be called.
        if isinstance(transport, Transport):
            transport.pause_reading()  # what comes next is the peer's handshake
            await transport.resumed()
        return await super().start_tls(transport, *args, **options)

    async def _sendfile_native(self, transp: Any, file: Any, offset: int, count: int | None) -> int:
        if isinstance(transp, Transport):
            # io_uring has no sendfile(2): what asyncio's would send is copied.
            self._check_sendfile_params(transp.get_extra_info("socket"), file, offset, count)  # type: ignore[attr-defined]
            try:
                file.fileno()
            except (AttributeError, io.UnsupportedOperation) as error:
                raise asyncio.SendfileNotAvailableError("not a regular file") from error
            file.seek(offset)  # as sendfile(2), which ignores the position of the file
            return await self._sendfile_fallback(transp, file, offset, count)
        return await super()._sendfile_native(  # type: ignore[misc,no-any-return]
            transp, file, offset, count
        )

    # asyncio asks whether a transport has the socket only when a call would block.  Ours does
    # block: the file of a connection of the core is not O_NONBLOCK.  So it is asked first.

    async def sock_recv(self, sock: socket.socket, nbytes: int) -> bytes:
        self._ensure_fd_no_transport(sock)  # type: ignore[attr-defined]
        return await super().sock_recv(sock, nbytes)

    async def sock_recv_into(self, sock: socket.socket, buf: Any) -> int:
        self._ensure_fd_no_transport(sock)  # type: ignore[attr-defined]
        return await super().sock_recv_into(sock, buf)

    async def sock_recvfrom(self, sock: socket.socket, bufsize: int) -> Any:
        self._ensure_fd_no_transport(sock)  # type: ignore[attr-defined]
        return await super().sock_recvfrom(sock, bufsize)

    async def sock_recvfrom_into(self, sock: socket.socket, buf: Any, nbytes: int = 0) -> Any:
        self._ensure_fd_no_transport(sock)  # type: ignore[attr-defined]
        return await super().sock_recvfrom_into(sock, buf, nbytes)

    async def sock_sendall(self, sock: socket.socket, data: Any) -> None:
        self._ensure_fd_no_transport(sock)  # type: ignore[attr-defined]
        await super().sock_sendall(sock, data)

    async def sock_sendto(self, sock: socket.socket, data: Any, address: Any) -> int:
        self._ensure_fd_no_transport(sock)  # type: ignore[attr-defined]
        return await super().sock_sendto(sock, data, address)

    async def sock_sendfile(self, sock: socket.socket, *args: Any, **options: Any) -> int:
        """Send a file as asyncio's loop does; `RuntimeError` for the socket of a transport."""
        self._ensure_fd_no_transport(sock)  # type: ignore[attr-defined]
        return await super().sock_sendfile(sock, *args, **options)

    async def _sendfile_fallback(
        self, transp: Any, file: Any, offset: int, count: int | None
    ) -> int:
        if not isinstance(transp, Transport):
            return await super()._sendfile_fallback(  # type: ignore[misc,no-any-return]
                transp, file, offset, count
            )
        with sole_writer(self, transp):
            return await super()._sendfile_fallback(  # type: ignore[misc,no-any-return]
                transp, file, offset, count
            )

    def _adopt(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        **options: Any,
    ) -> Transport | None:
        """A transport on the ring for a connected socket."""
        if not _is_tcp(sock):
            return None
        before = self._transports.get(sock.fileno())  # type: ignore[attr-defined]
        if not (isinstance(before, Transport) and before.number_given_up):
            self._ensure_fd_no_transport(sock)  # type: ignore[attr-defined]
        lent = sock not in self._connected  # a socket that asyncio has connected is the loop's
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self.driver.adopt(sock.fileno(), lent)
        if connection is None:
            return None
        family = sock.family
        if not lent:
            sock.detach()
        try:
            transport = Transport(
                self, connection, protocol, sock if lent else None, family=family, **options
            )
        except BaseException:
            connection._drop()
            raise
        self.call_soon(transport.begin, context=transport.context)
        return transport
