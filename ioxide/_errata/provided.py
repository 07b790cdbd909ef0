# SPDX-License-Identifier: MIT
"""A provided-buffer ring whose memory the test owns: entries can be read back, min_left be set.

`RawRing.provide` does for everything else; here a test looks at what the kernel did to the entries,
and uses a field of the registration that is newer than ioxide's own struct.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from types import TracebackType
from typing import Self

from ioxide._probe.rawring import RawRing
from ioxide._ring import ffi, lib

REGISTER_PBUF_RING, UNREGISTER_PBUF_RING = 22, 23  # IORING_REGISTER_*, 5.19

# struct io_uring_buf_reg: ring_addr, ring_entries, bgid, flags, min_left (reserved, zero, before
# liburing 3891a21f of April 2026), reserved.
_REGISTRATION = struct.Struct("=QIHHI20x")
# struct io_uring_buf: addr, len, bid, resv; the ring's tail overlays the first entry's resv.
_ENTRY = struct.Struct("=QIHH")
_TAIL = struct.Struct("=H")
_TAIL_OFFSET = 14
UNWRITTEN = 0xEE
"""What a byte of a buffer is until the kernel writes it."""


class Provided:
    """`entries` buffers of `size` bytes, all given; close it before its ring.

    Raises OSError as IORING_REGISTER_PBUF_RING failed.
    """

    def __init__(
        self,
        ring: RawRing,
        *,
        group: int = 9,
        entries: int = 4,
        size: int = 4096,
        flags: int = 0,
        min_left: int = 0,
    ) -> None:
        self.group, self.entries, self.size = group, entries, size
        self._ring = ring
        self._table = mmap.mmap(-1, entries * _ENTRY.size)
        self._data = mmap.mmap(-1, entries * size)
        self._data[:] = bytes([UNWRITTEN]) * len(self._data)
        self._tail = 0
        self._base = int(ffi.cast("uintptr_t", ffi.from_buffer(self._data)))
        table = int(ffi.cast("uintptr_t", ffi.from_buffer(self._table)))
        self._register(
            REGISTER_PBUF_RING, _REGISTRATION.pack(table, entries, group, flags, min_left)
        )
        for bid in range(entries):
            self.give(bid)

    def _register(self, opcode: int, argument: bytes) -> None:
        result = int(lib.iox_probe_register(self._ring.raw, opcode, ffi.from_buffer(argument), 1))
        if result < 0:
            raise OSError(-result, f"register opcode {opcode}: {os.strerror(-result)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._register(UNREGISTER_PBUF_RING, _REGISTRATION.pack(0, 0, self.group, 0, 0))

    def give(self, bid: int) -> None:
        """Hand buffer `bid` to the kernel, whole."""
        at = self._tail % self.entries * _ENTRY.size
        # The last two bytes of the first entry are the tail, so all but those are written.
        entry = _ENTRY.pack(self._base + bid * self.size, self.size, bid, 0)[:_TAIL_OFFSET]
        self._table[at : at + _TAIL_OFFSET] = entry
        self._tail = self._tail + 1 & 0xFFFF
        # x86 keeps the order of stores: the kernel sees the entry before the tail that covers it.
        _TAIL.pack_into(self._table, _TAIL_OFFSET, self._tail)

    def length(self, index: int) -> int:
        """The length that entry `index` of the ring says its buffer has."""
        fields = _ENTRY.unpack_from(self._table, index * _ENTRY.size)
        return int(fields[1])

    def write(self, bid: int, data: bytes) -> None:
        """Put `data` at the start of buffer `bid`, to be sent from there."""
        start = bid * self.size
        self._data[start : start + len(data)] = data

    def read(self, bid: int, length: int, *, offset: int = 0) -> bytes:
        """`length` bytes of the buffers from `offset` of buffer `bid` on."""
        start = bid * self.size + offset
        return self._data[start : start + length]


def takes_min_left(ring: RawRing) -> bool:
    """Whether the kernel knows min_left: the sub-capability that retires a too small tail."""
    try:
        with Provided(ring, group=99, entries=1, flags=lib.IOX_PBUF_RING_INC, min_left=64):
            return True
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
