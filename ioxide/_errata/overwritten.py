# SPDX-License-Identifier: MIT
"""An incremental ring (IOU_PBUF_RING_INC, 6.12) whose entry is overwritten by what is received."""

from __future__ import annotations

import mmap
import os
import socket
import struct
import sys
import time

from ioxide._errata.present import ErratumPresent, reproducer
from ioxide._errata.provided import REGISTER_PBUF_RING
from ioxide._probe.rawring import RawRing
from ioxide._ring import ffi, lib

GROUP = 9
LENGTH = 32  # two entries
LIMIT_S = 10.0  # far above what a slow guest takes, below what a kernel calls a soft lockup
_READY = b"ready\n"


def _receive() -> None:
    """Receive zeros over the ring's own entries, in this process."""
    table = mmap.mmap(-1, 4096)
    address = int(ffi.cast("uintptr_t", ffi.from_buffer(table)))
    # struct io_uring_buf, whose last two bytes are the ring's tail in the first entry
    table[:16] = struct.pack("=QIHH", address, 4096, 0, 1)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far, RawRing() as ring:
        registration = struct.pack("=QIHHI20x", address, 2, GROUP, lib.IOX_PBUF_RING_INC, 0)
        result = lib.iox_probe_register(
            ring.raw, REGISTER_PBUF_RING, ffi.from_buffer(registration), 1
        )
        assert result == 0, f"IORING_REGISTER_PBUF_RING: {result}"
        near.send(bytes(LENGTH))
        ring.recv(far.fileno(), group=GROUP)
        os.write(1, _READY)
        found = ring.collect(1)
        # The control: the bytes were received, over the entry.
        assert [LENGTH] == [c.res for c in found], found
        assert table[:14] == bytes(14)


@reproducer(
    "IOX-ERR-031",
    needs=("INC",),
    harm="one processor loops in the kernel until the machine is restarted",
)
def entry_that_is_overwritten() -> None:
    """IOX-ERR-031: a receive that overwrites its own entry ends.

    liburing's test/ringbuf-loop.c describes it: the length of an entry is read again after the
    receive, and with a length of 0 the kernel walks over entries without end, in the system call,
    where no signal ends it.
    """
    reader, writer = os.pipe()
    try:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", __name__],
            dict(os.environ),
            # It may never end, so it holds nothing open that somebody waits for.
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, writer, 1),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
        )
        os.close(writer)
        writer = -1
        said = os.read(reader, len(_READY))
        deadline = time.monotonic() + LIMIT_S
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                break
            if time.monotonic() > deadline:
                os.kill(pid, 9)
                time.sleep(1)
                ended, status = os.waitpid(pid, os.WNOHANG)
                assert not ended, f"the receive did not end within {LIMIT_S} s, but was killed"
                raise ErratumPresent(
                    "IOX-ERR-031",
                    f"a receive over its own entry did not end in {LIMIT_S:.0f} s, nor by SIGKILL",
                )
            time.sleep(0.01)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    # The control: the receive did happen, over the entry.
    assert (said, status) == (_READY, 0), f"the process of the receive: {said!r}, {status:#x}"


if __name__ == "__main__":
    _receive()
