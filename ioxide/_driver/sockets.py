# SPDX-License-Identifier: MIT
"""Socket objects for descriptors that the connection core owns: none of them closes one."""

from __future__ import annotations

import asyncio.trsock
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ioxide._ring import _core

# With SOCK_NONBLOCK the constructor leaves a given descriptor as it is.  Without, it would make it
# non-blocking whenever socket.setdefaulttimeout() is set, and io_uring answers -EAGAIN then.
_KIND = socket.SOCK_STREAM | socket.SOCK_NONBLOCK


def around(fd: int, family: int = socket.AF_INET) -> socket.socket:
    """A socket object that owns the TCP socket `fd`, and changes no flag of it.

    Raises `OSError` (EBADF) when `fd` is no open descriptor.
    """
    return socket.socket(family, _KIND, socket.IPPROTO_TCP, fileno=fd)


@contextmanager
def borrowed(fd: int, family: int) -> Iterator[socket.socket]:
    """A socket object around `fd` for the length of a block; it does not close it."""
    sock = around(fd, family)
    try:
        yield sock
    finally:
        sock.detach()


class _Duplicate(socket.socket):
    """Closes its descriptor without a ResourceWarning when nobody uses it any more."""

    def __del__(self) -> None:
        self.close()


class TransportSocket(asyncio.trsock.TransportSocket):
    """asyncio's class over the core's descriptor, for ``transport.get_extra_info("socket")``.

    Once the connection has ended its calls raise `OSError` (EBADF), and `fileno()` is -1.
    """

    __slots__ = ("_connection", "_family")

    def __init__(self, connection: _core.Connection, family: int) -> None:
        self._connection: _core.Connection | None = connection
        self._family = family

    @property
    def _sock(self) -> socket.socket:
        # A duplicate, so that nobody keeps the number of a connection that has ended.
        fd = -1 if self._connection is None else self._connection._duplicate()
        sock = _Duplicate(self._family, _KIND, socket.IPPROTO_TCP, fileno=fd if fd >= 0 else None)
        if fd < 0:
            sock.close()
        return sock

    @property
    def family(self) -> int:
        return socket.AddressFamily(self._family)

    @property
    def type(self) -> int:
        return socket.SOCK_STREAM

    @property
    def proto(self) -> int:
        return socket.IPPROTO_TCP

    def fileno(self) -> int:
        return -1 if self._connection is None else self._connection.fileno()

    def release(self) -> None:
        """Called when the transport is done with the connection."""
        self._connection = None
