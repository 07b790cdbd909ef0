# SPDX-License-Identifier: MIT
"""What the kernel says of itself and which calls it takes, word by word.

A fact is no capability: nothing is promised about it, no test needs it and ``IOXIDE_CAPS`` does not
mask it.  Facts are there to be compared between kernels, so a value is the same whenever the same
kernel is asked: ``yes``, ``no``, the name of an errno, or what the completions said.  Opcodes and
flags are numbers of the kernel's ABI (<linux/io_uring.h>) that the headers of this machine may not
have yet.
"""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from ioxide._probe.outcome import described, failed, payload, received, stream_pair
from ioxide._probe.rawring import RawRing
from ioxide._probe.refusal import sysctl
from ioxide._ring import ffi, lib

__all__ = ["of_the_machine", "of_the_ring"]

# IORING_FEAT_*, by bit.
_FEATURES = (
    *("SINGLE_MMAP", "NODROP", "SUBMIT_STABLE", "RW_CUR_POS", "CUR_PERSONALITY", "FAST_POLL"),
    *("POLL_32BITS", "SQPOLL_NONFIXED", "EXT_ARG", "NATIVE_WORKERS", "RSRC_TAGS", "CQE_SKIP"),
    *("LINKED_FILE", "REG_REG_RING", "RECVSEND_BUNDLE", "MIN_TIMEOUT", "RW_ATTR", "NO_IOWAIT"),
)
# enum io_uring_op, in order.
_OPCODES = (
    *("NOP", "READV", "WRITEV", "FSYNC", "READ_FIXED", "WRITE_FIXED", "POLL_ADD", "POLL_REMOVE"),
    *("SYNC_FILE_RANGE", "SENDMSG", "RECVMSG", "TIMEOUT", "TIMEOUT_REMOVE", "ACCEPT"),
    *("ASYNC_CANCEL", "LINK_TIMEOUT", "CONNECT", "FALLOCATE", "OPENAT", "CLOSE", "FILES_UPDATE"),
    *("STATX", "READ", "WRITE", "FADVISE", "MADVISE", "SEND", "RECV", "OPENAT2", "EPOLL_CTL"),
    *("SPLICE", "PROVIDE_BUFFERS", "REMOVE_BUFFERS", "TEE", "SHUTDOWN", "RENAMEAT", "UNLINKAT"),
    *("MKDIRAT", "SYMLINKAT", "LINKAT", "MSG_RING", "FSETXATTR", "SETXATTR", "FGETXATTR"),
    *("GETXATTR", "SOCKET", "URING_CMD", "SEND_ZC", "SENDMSG_ZC", "READ_MULTISHOT", "WAITID"),
    *("FUTEX_WAIT", "FUTEX_WAKE", "FUTEX_WAITV", "FIXED_FD_INSTALL", "FTRUNCATE", "BIND", "LISTEN"),
    *("RECV_ZC", "EPOLL_WAIT", "READV_FIXED", "WRITEV_FIXED", "PIPE", "NOP128", "URING_CMD128"),
)
_IOPOLL = 1 << 0
_COOP_TASKRUN = 1 << 8
_SINGLE_ISSUER = 1 << 12
_NO_SQARRAY = 1 << 16
# IORING_SETUP_*, each with what it is not taken without.
_SETUP_FLAGS = {
    "IOPOLL": _IOPOLL,
    "SQPOLL": 1 << 1,
    "R_DISABLED": 1 << 6,
    "SUBMIT_ALL": 1 << 7,
    "COOP_TASKRUN": _COOP_TASKRUN,
    "TASKRUN_FLAG": 1 << 9 | _COOP_TASKRUN,
    "SQE128": 1 << 10,
    "CQE32": 1 << 11,
    "SINGLE_ISSUER": _SINGLE_ISSUER,
    "DEFER_TASKRUN": 1 << 13 | _SINGLE_ISSUER,
    "NO_SQARRAY": _NO_SQARRAY,
    "HYBRID_IOPOLL": 1 << 17 | _IOPOLL,
    "CQE_MIXED": 1 << 18,
    "SQE_MIXED": 1 << 19,
    "SQ_REWIND": 1 << 20 | _NO_SQARRAY,
}
_REGISTER_PBUF_RING = 22
_REGISTER_NAPI = 27
_NAPI_TRACKING = {"dynamic": 0, "static": 1}
_BUFFERS_MMAP = 1 << 0  # the kernel makes the ring's memory, which is mapped; no address is given
_BUFFERS_INC = 1 << 1
_PAGE = 4096


def of_the_machine() -> dict[str, str]:
    """What limits io_uring here, also where no ring can be opened."""
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return {
        # The sysctl came with 6.6.
        "sysctl.io_uring_disabled": sysctl("io_uring_disabled") or "no such sysctl",
        "rlimit.memlock": "unlimited" if limit == resource.RLIM_INFINITY else str(limit),
    }


def of_the_ring(features: int, opcodes: frozenset[int]) -> dict[str, str]:
    """What the kernel's io_uring says of itself and which calls it takes.

    :param features: the feature bits of io_uring_setup(2).
    :param opcodes: those that IORING_REGISTER_PROBE calls supported.
    """
    bits = max(len(_FEATURES), features.bit_length())
    numbers = range(max(len(_OPCODES), max(opcodes, default=0) + 1))
    return {
        **{f"feature.{_name(_FEATURES, n)}": _yes(features >> n & 1 == 1) for n in range(bits)},
        **{f"opcode.{_name(_OPCODES, n)}": _yes(n in opcodes) for n in numbers},
        **{f"setup.{name}": _attempt(_opens, flags) for name, flags in _SETUP_FLAGS.items()},
        **{f"buffers.{name}": answer for name, answer in _buffer_rings()},
        "receive.INC+BUNDLE": _attempt(_bundle_in_incremental_buffers),
        **{f"napi.{name}": _attempt(_napi, how) for name, how in _NAPI_TRACKING.items()},
        "napi.longest_poll": _attempt(_longest_poll),
    }


def _name(names: tuple[str, ...], number: int) -> str:
    """A bit or opcode newer than this table is still told, by its number."""
    return names[number] if number < len(names) else str(number)


def _yes(present: bool) -> str:
    return "yes" if present else "no"


def _attempt(what: Callable[..., str], *arguments: int) -> str:
    try:
        return what(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))


def _answer(result: int) -> str:
    """The word for what io_uring_register(2) returned."""
    return "yes" if result >= 0 else errno.errorcode.get(-result, str(result))


def _opens(flags: int) -> str:
    with RawRing(flags=flags):
        return "yes"


def _buffer_rings() -> Iterator[tuple[str, str]]:
    for name, flags in (("plain", 0), ("INC", _BUFFERS_INC)):
        yield name, _attempt(_provides, flags)
    both = _BUFFERS_MMAP | _BUFFERS_INC
    for name, flags in (("MMAP", _BUFFERS_MMAP), ("MMAP+INC", both)):
        yield name, _attempt(_mapped, flags)
    yield "INC+min_left", _attempt(_mapped, both, 64)


def _provides(flags: int) -> str:
    with RawRing() as ring:
        ring.provide(group=7, entries=2, size=_PAGE, flags=flags)
        return "yes"


def _mapped(flags: int, min_left: int = 0) -> str:
    """struct io_uring_buf_reg without an address; the ring's end unregisters it.

    `min_left`, newer than 7.0, retires a buffer with fewer bytes left; it was reserved before.
    """
    with RawRing() as ring:
        argument = ffi.new("uint32_t[10]", [0, 0, 2, 7 | flags << 16, min_left])
        return _answer(int(lib.iox_probe_register(ring.raw, _REGISTER_PBUF_RING, argument, 1)))


def _napi(tracking: int) -> str:
    """struct io_uring_napi: microseconds, prefer_busy_poll, operation 0 (register), tracking."""
    with RawRing() as ring:
        argument = ffi.new("uint32_t[4]", [50, 0, tracking])
        return _answer(int(lib.iox_probe_register(ring.raw, _REGISTER_NAPI, argument, 1)))


def _longest_poll() -> str:
    """What a ring makes of a busy poll of 60 ms: a limit of 10 ms came with 7.1, and with stable
    releases of 2026 (io_napi_register_napi(), io_uring/napi.c)."""
    with RawRing() as ring:
        asked = 60_000
        timeout_us, prefer = ffi.new("uint32_t *", asked), ffi.new("uint8_t *")
        for enable in (1, 0):  # unregistering tells what was registered
            result = int(lib.iox_probe_napi(ring.raw, enable, timeout_us, prefer))
            if result < 0:
                return _answer(result)
        return "as asked" if timeout_us[0] == asked else f"{int(timeout_us[0])} us"


def _bundle_in_incremental_buffers() -> str:
    """What a bundle says that goes on in a begun buffer and ends inside the next one."""
    with ExitStack() as stack:
        near, far, _ = stream_pair(stack)
        ring = stack.enter_context(RawRing())
        buffers = ring.provide(group=7, entries=4, size=_PAGE, flags=_BUFFERS_INC)
        flags = lib.IOX_RECV_MULTISHOT | lib.IOX_RECVSEND_BUNDLE
        near.sendall(payload(1000))
        ring.recv(far.fileno(), group=buffers.group, ioprio=flags)
        found = ring.collect(1)
        if found and found[-1].more:
            near.sendall(payload(6000))
            found += ring.collect(lambda more: failed(more) or received(more) >= 6000)
        return "; ".join(described(found)) or "no completion"
