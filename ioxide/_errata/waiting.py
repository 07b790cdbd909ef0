# SPDX-License-Identifier: MIT
"""What the reproducers share: requests by number, and bytes that certainly wait in a socket."""

from __future__ import annotations

import array
import fcntl
import socket
import termios
import time

from ioxide._probe.rawring import WAIT_MS, Completion, RawRing
from ioxide._ring import lib

OP_READ = 22  # IORING_OP_READ, 5.6
OP_WRITE = 23  # IORING_OP_WRITE, 5.6
OP_RECVMSG = 10  # IORING_OP_RECVMSG, 5.3


def waiting(sock: socket.socket, length: int) -> None:
    """Return once `length` bytes wait to be read from `sock`; AssertionError if they never do."""
    deadline = time.monotonic() + WAIT_MS / 1000
    count = array.array("i", [0])
    while True:
        fcntl.ioctl(sock, termios.FIONREAD, count)
        if count[0] >= length:
            return
        assert time.monotonic() < deadline, f"{count[0]} of {length} bytes arrived"
        time.sleep(0.001)


def read(ring: RawRing, fd: int, *, group: int, length: int = 0, offset: int = -1) -> Completion:
    """One IORING_OP_READ into a provided buffer, to its completion."""
    ring.push(
        OP_READ,
        fd=fd,
        off=offset & (1 << 64) - 1,
        len=length,
        flags=lib.IOX_PROBE_SQE_BUFFER_SELECT,
        buf_group=group,
    )
    found = ring.collect(1)
    assert len(found) == 1, f"one completion was due, there are {len(found)}"
    return found[0]


def described(found: list[Completion]) -> str:
    """The completions in one line, for evidence."""
    return "; ".join(completion.describe() for completion in found)
