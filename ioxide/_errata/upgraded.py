# SPDX-License-Identifier: MIT
"""A group of buffers that is given up and registered as a ring while a request has one of them."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ioxide._errata.complaints import complaints
from ioxide._errata.present import ErratumPresent, NotTried, reproducer
from ioxide._errata.provided import REGISTER_PBUF_RING, UNREGISTER_PBUF_RING
from ioxide._probe.rawring import RawRing
from ioxide._ring import ffi, lib

GROUP = 9
SIZE = 4096
LIMIT_S = 15.0  # far above what a slow guest takes
_LOOK_S = 0.1
OP_PROVIDE_BUFFERS = 31  # IORING_OP_PROVIDE_BUFFERS, 5.7
_ASYNC = 1 << 4  # IOSQE_ASYNC, 5.6
_ENTRIES = 512  # two pages of entries
_MAY_NOT, _UPGRADED, _OVERWRITTEN, _RAN = b"may not: ", b"upgraded\n", b"overwritten\n", b"ran\n"
_COMPLAINED = b"complained\n"  # not by the process: the kernel
_NUMBERS = {"x86_64": 323, "aarch64": 282}  # of userfaultfd(2)
# _IOWR(0xaa, ...) of struct uffdio_api, uffdio_register and uffdio_copy (linux/userfaultfd.h, 4.3)
_API, _REGISTER, _COPY = 0xC018AA3F, 0xC020AA00, 0xC028AA03
_UFFD_API, _MISSING = 0xAA, 1


class HeldFault:
    """A page whose first access waits in the kernel until `release()`: userfaultfd(2).

    Raises OSError: EPERM without CAP_SYS_PTRACE, as the access is the kernel's own.
    """

    def __init__(self) -> None:
        number = _NUMBERS.get(platform.machine())
        if number is None:
            raise OSError(errno.ENOSYS, "userfaultfd(2): its number is not known here")
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.syscall(number, os.O_CLOEXEC | os.O_NONBLOCK)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        fcntl.ioctl(self.fd, _API, struct.pack("=QQQ", _UFFD_API, 0, 0))
        self.page = mmap.mmap(-1, SIZE)
        self._address = int(ffi.cast("uintptr_t", ffi.from_buffer(self.page)))
        fcntl.ioctl(self.fd, _REGISTER, struct.pack("=QQQQ", self._address, SIZE, _MISSING, 0))

    def reached(self) -> None:
        """Return once somebody waits for the page."""
        assert select.select([self.fd], [], [], LIMIT_S)[0], "nobody has touched the page"
        os.read(self.fd, 32)

    def release(self) -> None:
        """Let go on who waits."""
        source = ffi.new("char[]", SIZE)
        address = int(ffi.cast("uintptr_t", source))
        fcntl.ioctl(self.fd, _COPY, struct.pack("=QQQQq", self._address, address, SIZE, 0, 0))


def _worker_waits() -> bool:
    """Whether a worker of io-wq sleeps for a lock (state D, proc_pid_stat(5))."""
    for task in Path("/proc/self/task").iterdir():
        try:
            name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        if name.startswith("iou-wrk") and rest.split()[0] == "D":
            return True
    return False


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {LIMIT_S:.0f} s: {what}"
        time.sleep(0.01)


def _upgrade() -> None:
    """Have a receive take the only buffer of a group; register the group as a ring meanwhile."""
    try:
        held = HeldFault()
        # A kernel that notices says BUG; it is to stay, so that this can be told.
        Path("/proc/sys/kernel/panic_on_oops").write_text("0")
    except OSError as error:
        os.write(1, _MAY_NOT + str(error).encode())
        return
    table, data = mmap.mmap(-1, _ENTRIES * 16), mmap.mmap(-1, SIZE)
    near, far = socket.socketpair()
    with near, far, RawRing() as ring:
        ring.push(
            OP_PROVIDE_BUFFERS,
            fd=1,
            addr=int(ffi.cast("uintptr_t", ffi.from_buffer(data))),
            len=SIZE,
            off=0,
            buf_group=GROUP,
        )
        found = ring.collect(1)
        assert [True] == [c.res >= 0 for c in found], found
        # A read of these bytes holds the lock of the socket while it waits for the page ...
        near.send(bytes(100))
        reader = threading.Thread(target=far.recv_into, args=(memoryview(held.page)[:100],))
        reader.start()
        held.reached()
        # ... so that a receive has taken its buffer when it comes to wait for that lock.
        ring.push(
            lib.IOX_PROBE_OP_RECV,
            fd=far.fileno(),
            flags=lib.IOX_PROBE_SQE_BUFFER_SELECT | _ASYNC,
            buf_group=GROUP,
        )
        assert ring.enter() == 1
        _until(_worker_waits, "a worker waits for the lock of the socket")
        address = int(ffi.cast("uintptr_t", ffi.from_buffer(table)))
        registration = struct.pack("=QIHHI20x", address, _ENTRIES, GROUP, 0, 0)
        result = ring.register(REGISTER_PBUF_RING, ffi.from_buffer(registration))
        assert result == 0, f"IORING_REGISTER_PBUF_RING: {result}"
        os.write(1, _UPGRADED)
        # The bytes are read, so the receive finds none: it gives its buffer back and waits.
        held.release()
        reader.join()
        _until(lambda: not _worker_waits(), "the worker has the lock")
        time.sleep(0.2)
        if any(table[:]):
            os.write(1, _OVERWRITTEN)
            os._exit(0)  # without another use of the group
        registration = struct.pack("=QIHHI20x", 0, 0, GROUP, 0, 0)
        result = ring.register(UNREGISTER_PBUF_RING, ffi.from_buffer(registration))
        assert result == 0, f"IORING_UNREGISTER_PBUF_RING: {result}"
    os.write(1, _RAN)


@reproducer(
    "IOX-ERR-032",
    needs=("PBUF_RING",),
    harm="the kernel's memory is overwritten",
)
def group_that_becomes_a_ring() -> None:
    """IOX-ERR-032: a buffer that comes back to a group which is a ring by now harms nothing.

    io_uring's changes for 7.0 of 12 March 2026 describe it: io_kbuf_recycle_legacy() puts the
    buffer into the list of its group, whose memory a ring uses for its pointers. It needs a worker
    that has a buffer and finds nothing to receive; a page fault that is held back makes it so.
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
        said, status = _ended(pid, reader)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    if said.startswith(_MAY_NOT):
        raise NotTried(f"userfaultfd(2): {said[len(_MAY_NOT) :].decode()}")
    # The control: the group became a ring while the receive had the buffer.
    assert said.startswith(_UPGRADED), f"the process of the ring: {said!r}, {status}"
    if said.endswith(_OVERWRITTEN):
        raise ErratumPresent(
            "IOX-ERR-032",
            "the buffer was put into a list whose head is the first entry of the ring",
        )
    if said.endswith(_COMPLAINED):
        raise ErratumPresent(
            "IOX-ERR-032", "the kernel complained when a buffer came back to a group that is a ring"
        )
    if status is None or os.WIFSIGNALED(status):
        how = f"did not end in {LIMIT_S:.0f} s"
        if status is not None:
            how = f"was ended by signal {os.WTERMSIG(status)}"
        raise ErratumPresent(
            "IOX-ERR-032", f"the process whose buffer came back to a group that is a ring {how}"
        )
    assert (said, status) == (_UPGRADED + _RAN, 0), f"the process of the ring: {said!r}, {status}"


def _ended(pid: int, reader: int) -> tuple[bytes, int | None]:
    """What the process wrote, and how it ended; None when it does not end, which is not waited for
    once the kernel has complained."""
    said, before = b"", complaints()
    deadline = time.monotonic() + 3 * LIMIT_S  # it waits for two things itself
    while (left := deadline - time.monotonic()) > 0:
        if select.select([reader], [], [], min(left, _LOOK_S))[0]:
            part = os.read(reader, 4096)
            if not part:  # each descriptor of it is closed
                break
            said += part
            deadline = time.monotonic() + LIMIT_S
        elif complaints() & ~before:
            os.kill(pid, signal.SIGKILL)
            return said + _COMPLAINED, None
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return said, status
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)  # which does not reach it while it waits for a lock
    return said, None


if __name__ == "__main__":
    _upgrade()
