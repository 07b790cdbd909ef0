# SPDX-License-Identifier: MIT
"""The smallest ring that can be asked questions: what the probe and the kernel-gated tests use.

It is raw on purpose.  Every call is one kernel operation whose result is handed back as it came;
nothing is retried, hidden or re-armed, except that no wait is unbounded.  The reactor's own ring is
another one (``ioxide._ring``): a kernel must be shown to keep a promise without its help.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from mmap import mmap
from types import TracebackType
from typing import Any, NamedTuple, Self

from ioxide._ring import ffi, lib

__all__ = ["WAIT_MS", "BufferRing", "Completion", "RawRing", "os_error"]

WAIT_MS = 3_000
"""No wait of an experiment is longer; generous, as emulated guests are some eleven times slower."""

# ENOMEM at set-up is retried: the kernel gives the locked memory of closed rings back some time
# after close(2) returned, so a user with a small RLIMIT_MEMLOCK sees a full account for a moment.
_SETUP_BACKOFF_MS = (5, 10, 20, 40, 80)


def os_error(result: int, what: str) -> OSError:
    """The exception for a negative kernel result, saying what was tried."""
    return OSError(-result, f"{what}: {os.strerror(-result)}")


class Completion(NamedTuple):
    """One completion queue entry."""

    user_data: int
    res: int
    flags: int

    @property
    def more(self) -> bool:
        """The request will post further completions (F_MORE)."""
        return bool(self.flags & lib.IOX_CQE_F_MORE)

    @property
    def notif(self) -> bool:
        """This is a zero-copy send's notification (F_NOTIF, 6.0)."""
        return bool(self.flags & lib.IOX_CQE_F_NOTIF)

    @property
    def buf_more(self) -> bool:
        """The buffer will be appended to (F_BUF_MORE, 6.12)."""
        return bool(self.flags & lib.IOX_CQE_F_BUF_MORE)

    @property
    def buffer_id(self) -> int | None:
        """The provided buffer that was used first, None when there was none."""
        if not self.flags & lib.IOX_CQE_F_BUFFER:
            return None
        return int(self.flags) >> int(lib.IOX_CQE_BUFFER_SHIFT)

    def describe(self) -> str:
        """``res=1000 bid=0 MORE BUF_MORE`` or ``res=-62 ETIME``, for evidence."""
        words = [f"res={self.res}"]
        if -self.res in errno.errorcode:
            words.append(errno.errorcode[-self.res])
        if self.buffer_id is not None:
            words.append(f"bid={self.buffer_id}")
        names = {"MORE": self.more, "NOTIF": self.notif, "BUF_MORE": self.buf_more}
        words += [name for name, present in names.items() if present]
        return " ".join(words)


class RawRing:
    """One io_uring, opened by the constructor and closed by the ``with`` block.

    :param entries: submission queue entries (the kernel rounds up to a power of two).
    :param flags: ``IOX_SETUP_*``.
    :param cq_entries: completion queue entries; 0 leaves it to the kernel (twice ``entries``).
    :raises OSError: as io_uring_setup(2) or mmap(2) failed.

    ``last_us`` is how long the last :meth:`enter` took, in microseconds.
    """

    def __init__(self, entries: int = 8, *, flags: int = 0, cq_entries: int = 0) -> None:
        self._ring: Any = ffi.new("struct iox_probe_ring *")
        self._ring.fd = -1
        self._alive: list[object] = []
        self._buffers: list[BufferRing] = []
        for backoff_ms in (*_SETUP_BACKOFF_MS, None):
            result = int(lib.iox_probe_ring_open(self._ring, entries, flags, cq_entries))
            if result != -errno.ENOMEM or backoff_ms is None:
                break
            time.sleep(backoff_ms / 1000)
        if result < 0:
            raise os_error(result, f"io_uring_setup({entries} entries, flags {flags:#x})")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is in flight, close the ring, and only then free the buffers' memory."""
        # Unregistering a buffer ring before the close, freeing it after: the kernel may hold the
        # pages until the ring is really gone (reactor.md (e), "Ring memory").
        for buffers in self._buffers:
            lib.iox_probe_buffers_unregister(self._ring, buffers.raw)
        lib.iox_probe_ring_close(self._ring)
        for buffers in self._buffers:
            lib.iox_probe_buffers_free(buffers.raw)
        self._buffers.clear()
        self._alive.clear()

    @property
    def fd(self) -> int:
        return int(self._ring.fd)

    @property
    def raw(self) -> Any:
        """The ``struct iox_probe_ring *``, for calls that this class does not wrap."""
        return self._ring

    @property
    def features(self) -> int:
        """The kernel's ``IORING_FEAT_*`` bits."""
        return int(self._ring.features)

    @property
    def sq_entries(self) -> int:
        return int(self._ring.sq_entries)

    @property
    def cq_entries(self) -> int:
        return int(self._ring.cq_entries)

    @property
    def last_us(self) -> int:
        return int(self._ring.elapsed_us)

    @property
    def ready(self) -> int:
        """Completions that can be reaped without a system call."""
        return int(lib.iox_probe_ready(self._ring))

    @property
    def cq_overflow(self) -> bool:
        """Whether the kernel says that completions did not fit (IORING_SQ_CQ_OVERFLOW, 5.8)."""
        return bool(lib.iox_probe_sq_flags(self._ring) & lib.IOX_SQ_CQ_OVERFLOW)

    def has_opcode(self, opcode: int) -> bool:
        """Whether the kernel lists the opcode as supported (IORING_REGISTER_PROBE, 5.6)."""
        return int(lib.iox_probe_has_opcode(self._ring, opcode)) == 1

    def register(self, opcode: int, argument: Any, number: int = 1) -> int:
        """io_uring_register(2) with ``argument``, a C object; the result as the kernel gave it."""
        return int(lib.iox_probe_register(self._ring, opcode, argument, number))

    def keep(self, buffer: bytes | bytearray | mmap) -> int:
        """The address of ``buffer``, which is kept alive until the ring is closed."""
        view = ffi.from_buffer(buffer)
        self._alive.append((buffer, view))
        return int(ffi.cast("uintptr_t", view))

    def keep_timespec(self, seconds: float) -> int:
        """The address of a ``struct timespec``, kept alive until the ring is closed."""
        whole, rest = divmod(int(seconds * 1_000_000_000), 1_000_000_000)
        spec = ffi.new("int64_t[2]", [whole, rest])
        self._alive.append(spec)
        return int(ffi.cast("uintptr_t", spec))

    def push(self, opcode: int, **fields: int) -> None:
        """Queue one SQE; ``fields`` are those of ``struct iox_probe_sqe`` (probe.h).

        :raises OSError: EBUSY when the submission queue is full.
        """
        sqe = ffi.new("struct iox_probe_sqe *", {"opcode": opcode, "fd": -1, **fields})
        result = int(lib.iox_probe_push(self._ring, sqe))
        if result < 0:
            raise os_error(result, f"no room for opcode {opcode} in {self.sq_entries} SQ entries")

    def recv(self, fd: int, *, group: int, ioprio: int = 0, user_data: int = 0) -> None:
        """Queue a receive into the provided buffers of ``group``."""
        self.push(
            lib.IOX_PROBE_OP_RECV,
            fd=fd,
            ioprio=ioprio,
            flags=lib.IOX_PROBE_SQE_BUFFER_SELECT,
            buf_group=group,
            user_data=user_data,
        )

    def enter(
        self,
        *,
        wait: int = 0,
        timeout_ms: float = WAIT_MS,
        min_wait_us: int = 0,
        fd: int | None = None,
        flags: int = 0,
    ) -> int:
        """One io_uring_enter(2) that submits all that is queued; the result as the kernel gave it.

        :param wait: completions to wait for; GETEVENTS is always set, because a DEFER_TASKRUN ring
            posts nothing without it.
        :param timeout_ms: the longest wait; -ETIME when it ran out.
        :param min_wait_us: microseconds after which fewer than ``wait`` completions do (6.12).
        :param fd: the ring's descriptor, or a registered index with ``IOX_ENTER_REGISTERED_RING``.
        """
        return int(
            lib.iox_probe_enter(
                self._ring,
                self.fd if fd is None else fd,
                wait,
                flags | lib.IOX_ENTER_GETEVENTS,
                int(timeout_ms * 1000),
                min_wait_us,
            )
        )

    def reap(self) -> list[Completion]:
        """All completions that are there; no system call."""
        found: list[Completion] = []
        cqe = ffi.new("struct iox_probe_cqe *")
        while lib.iox_probe_reap(self._ring, cqe):
            found.append(Completion(cqe.user_data, cqe.res, cqe.flags))
        return found

    def collect(
        self,
        enough: int | Callable[[list[Completion]], bool],
        *,
        timeout_ms: float = WAIT_MS,
    ) -> list[Completion]:
        """Submit and reap until there are ``enough`` completions, or the time is over.

        Fewer than asked for is no error here: what came is the evidence.
        """
        deadline = time.monotonic() + timeout_ms / 1000
        found: list[Completion] = []
        while True:
            left_ms = (deadline - time.monotonic()) * 1000
            result = self.enter(wait=1, timeout_ms=max(left_ms, 0))
            if result < 0 and -result not in (errno.ETIME, errno.EINTR):
                raise os_error(result, "io_uring_enter")
            found += self.reap()
            if (len(found) >= enough) if isinstance(enough, int) else enough(found):
                return found
            if left_ms <= 0:
                return found

    def provide(
        self, *, group: int, entries: int = 8, size: int = 1024, flags: int = 0, min_left: int = 0
    ) -> BufferRing:
        """Register a provided-buffer ring of ``entries`` buffers, ``size`` bytes each.

        :param min_left: an incremental buffer with fewer bytes left is retired (7.1).

        :raises OSError: as IORING_REGISTER_PBUF_RING failed.
        """
        buffers = BufferRing(
            self, group=group, entries=entries, size=size, flags=flags, min_left=min_left
        )
        self._buffers.append(buffers)
        return buffers


class BufferRing:
    """A provided-buffer ring and its memory; made by :meth:`RawRing.provide`."""

    def __init__(
        self, ring: RawRing, *, group: int, entries: int, size: int, flags: int, min_left: int
    ) -> None:
        self.raw: Any = ffi.new("struct iox_probe_buffers *")
        self.group = group
        self.entries = entries
        self.size = size
        result = int(
            lib.iox_probe_buffers_open(ring.raw, self.raw, group, entries, size, flags, min_left)
        )
        if result < 0:
            raise os_error(result, f"IORING_REGISTER_PBUF_RING(flags {flags:#x})")

    def give(self, bid: int) -> None:
        """Hand buffer ``bid`` back to the kernel."""
        lib.iox_probe_buffers_give(self.raw, bid)

    def read(self, bid: int, length: int, *, offset: int = 0) -> bytes:
        """``length`` bytes from ``offset`` of buffer ``bid``, not beyond the buffer's end."""
        if not 0 <= bid < self.entries or offset < 0 or offset + length > self.size:
            raise ValueError(
                f"{length} bytes at {offset} of buffer {bid} are not within "
                f"{self.entries} buffers of {self.size} bytes"
            )
        start = bid * self.size + offset
        return bytes(ffi.buffer(self.raw.data + start, length))

    def span(self, first: int, length: int) -> bytes:
        """``length`` bytes of a bundle that begins in buffer ``first`` and goes on in the next."""
        pieces = []
        bid = first
        while length > 0:
            piece = min(length, self.size)
            pieces.append(self.read(bid % self.entries, piece))
            length -= piece
            bid += 1
        return b"".join(pieces)
