# SPDX-License-Identifier: MIT
"""A connect that nobody answers, on a socket that is shut down meanwhile."""

from __future__ import annotations

import errno
import socket
import struct
import time
from contextlib import ExitStack

from ioxide._errata.present import ErratumPresent, reproducer
from ioxide._errata.waiting import described
from ioxide._probe.rawring import RawRing

OP_CONNECT = 16  # IORING_OP_CONNECT, 5.5
TCP_SYNCNT, TCP_USER_TIMEOUT = 7, 18
GIVEN_UP_MS = 500
UNTIL_MS = 10_000.0


@reproducer("IOX-ERR-028")
def connect_that_is_shut_down() -> None:
    """IOX-ERR-028: a connect ends with ECONNRESET when its socket is shut down, not with a timeout.

    liburing's test/conn-unreach.c and https://github.com/axboe/liburing/discussions/1335: woken by
    the error, the kernel began to connect anew.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        host, port = listener.getsockname()
        # The one place of the queue is taken, so the kernel drops what asks for another.
        stack.enter_context(socket.create_connection((host, port), 3.0))
        lost = stack.enter_context(socket.socket())
        lost.setsockopt(socket.IPPROTO_TCP, TCP_SYNCNT, 2)
        lost.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, GIVEN_UP_MS)
        ring = stack.enter_context(RawRing())
        address = struct.pack("=H", socket.AF_INET) + struct.pack("!H", port)
        address += socket.inet_aton(host) + bytes(8)
        ring.push(OP_CONNECT, fd=lost.fileno(), addr=ring.keep(address), off=len(address))
        assert ring.enter() == 1
        early = ring.collect(1, timeout_ms=100)
        # The control: the connect waits.
        assert not early, described(early)
        lost.shutdown(socket.SHUT_RDWR)
        begun = time.monotonic()
        found = ring.collect(1, timeout_ms=UNTIL_MS)
        took = (time.monotonic() - begun) * 1000
        if not found or found[0].res == -errno.ETIMEDOUT:
            said = described(found) or "nothing"
            raise ErratumPresent("IOX-ERR-028", f"{said}, {took:.0f} ms after the shutdown")
        assert [-errno.ECONNRESET] == [c.res for c in found], described(found)
