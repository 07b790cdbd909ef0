# SPDX-License-Identifier: MIT
"""The experiment on zero-copy receives without a device (ZCRX_REG_NODEV, 7.1).

With a device the kernel lets a network card write into the area that was registered (6.15); no
device of a guest can.  Without one every byte is copied into the area, and the rest is the same.
"""

from __future__ import annotations

from contextlib import ExitStack
from mmap import PAGESIZE, mmap

from ioxide._probe.outcome import (
    REFUSALS,
    Outcome,
    described,
    open_ring,
    payload,
    refusal_of,
    refused,
    verdict,
)
from ioxide._probe.rawring import RawRing, os_error
from ioxide._probe.sending import loopback_pair
from ioxide._ring import ffi, lib

__all__ = ["zcrx_nodev"]

# <linux/io_uring/zcrx.h>
_REG_NODEV = 2
_REGION_USER = 1  # IORING_MEM_REGION_TYPE_USER
_RQ_ENTRIES = 16
_AREA_PAGES, _REFILL_PAGES = 32, 2
_OFFSET = (1 << 48) - 1  # IORING_ZCRX_AREA_SHIFT: what is above is the number of the area
# struct io_uring_zcrx_ifq_reg, as 32-bit words, and the one that tells the number given.
_IFQ_WORDS, _IFQ_ID = 24, 16


def zcrx_nodev() -> Outcome:
    """Bytes of a connection arrive in an area that was registered without a device.

    It takes CAP_NET_ADMIN (io_register_zcrx(), io_uring/zcrx.c); without it there is no answer.
    """
    # Each such completion has 32 bytes: it takes two places of the queue, and the second one holds
    # where in the area the bytes are (struct io_uring_zcrx_cqe).
    flags = lib.IOX_SETUP_SINGLE_ISSUER | lib.IOX_SETUP_DEFER_TASKRUN | lib.IOX_SETUP_CQE_MIXED
    ring, refusal = open_ring(flags)
    if ring is None:
        return refused(refusal, "IORING_SETUP_CQE_MIXED")
    data = payload(3000)
    with ExitStack() as stack:
        stack.enter_context(ring)
        area = mmap(-1, _AREA_PAGES * PAGESIZE)
        number = _register(ring, area)
        if -number in REFUSALS:
            return refused(number, "ZCRX_REG_NODEV")
        if number < 0:
            raise os_error(number, "IORING_REGISTER_ZCRX_IFQ")
        near, far = loopback_pair(stack)
        near.sendall(data)
        ring.push(
            lib.IOX_PROBE_OP_RECV_ZC,
            fd=far.fileno(),
            ioprio=lib.IOX_RECV_MULTISHOT,
            file_index=number,  # in a union with zcrx_ifq_idx
        )
        found = ring.collect(2)
        if (unanswered := refusal_of(found, "IORING_OP_RECV_ZC")) is not None:
            return unanswered
        got, last = b"", found[0]
        for last, where in zip(found[::2], found[1::2], strict=False):
            start = where.user_data & _OFFSET
            got += area[start : start + max(last.res, 0)]
        evidence: dict[str, object] = {
            "completions": described(found[::2]),
            "bytes": len(got),
            "bytes_intact": got == data,
        }
        seen = got == data and last.more
        return verdict(seen, evidence, "the bytes did not come into the area")


def _register(ring: RawRing, area: mmap) -> int:
    """The number of the new queue without a device, or a negative errno."""
    refill = mmap(-1, _REFILL_PAGES * PAGESIZE)
    # struct io_uring_region_desc and struct io_uring_zcrx_area_reg
    region = ffi.new("uint64_t[8]", [ring.keep(refill), len(refill), _REGION_USER])
    memory = ffi.new("uint64_t[6]", [ring.keep(area), len(area)])
    pointers = [int(ffi.cast("uintptr_t", what)) for what in (memory, region)]
    # Interface and its queue (none), entries of the refill ring, flags, the two pointers.
    halves = [half for p in pointers for half in (p & 0xFFFFFFFF, p >> 32)]
    words = [0, 0, _RQ_ENTRIES, _REG_NODEV, *halves]
    argument = ffi.new(f"uint32_t[{_IFQ_WORDS}]", words)
    result = ring.register(lib.IOX_REGISTER_ZCRX_IFQ, argument, 1)
    return result if result < 0 else int(argument[_IFQ_ID])
