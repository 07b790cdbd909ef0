# SPDX-License-Identifier: MIT
"""What the reproducers send over, and what they send."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from ioxide._probe.rawring import WAIT_MS
from ioxide._ring import lib

REACTOR_FLAGS: int = (
    lib.IOX_SETUP_SINGLE_ISSUER | lib.IOX_SETUP_DEFER_TASKRUN | lib.IOX_SETUP_SUBMIT_ALL
)
"""The set-up flags of a reactor's ring: what holds on a plain ring may not hold on such a one."""


@contextmanager
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of one connection over the loopback, with bounded waits."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT_MS / 1000)
        near = socket.create_connection(listener.getsockname(), WAIT_MS / 1000)
        with near, listener.accept()[0] as far:
            far.settimeout(WAIT_MS / 1000)
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield near, far


def pattern(length: int, *, seed: int = 0) -> bytes:
    """Bytes of which no two places look alike, the same in every run."""
    return random.Random(seed * 1_000_003 + length).randbytes(length)
