# SPDX-License-Identifier: MIT
"""``python -m ioxide._probe.napi_child``: the half of the NAPI experiment that needs namespaces."""

from __future__ import annotations

import errno
import json
import socket
import sys
import time
from contextlib import ExitStack

from ioxide._probe.netns import Pair, make_pair, netstat
from ioxide._probe.rawring import RawRing
from ioxide._ring import ffi, lib

_COUNTER = "BusyPollRxPackets"
_BUSY_POLL_US = 20_000
_LONG_POLL_US, _LONG_POLLS = 60_000, 3
_BYTES = 60_000
_BYTES_PER_S = 400_000
# A poll ends when another task wants the processor, so on a busy machine one transfer may not do:
# it is tried until it happens, and given up after so many seconds.  One takes a sixth of a second.
_PATIENCE_S = 20.0
_STATIC_PATIENCE_S = 10.0
_SO_INCOMING_NAPI_ID = 56
_REGISTER_NAPI = 27
_REGISTER, _ADD_ID = 0, 1  # IO_URING_NAPI_REGISTER_OP, _STATIC_ADD_ID
_TRACK_STATIC = 1  # IO_URING_NAPI_TRACKING_STATIC
_SO_MAX_PACING_RATE = 47  # <asm-generic/socket.h>; Python's socket module has no name for it


def _transfer(ring: RawRing, pair: Pair) -> tuple[int, int, int]:
    """Receive with ``ring`` what trickles in over the pair: bytes, the counter's growth, and the
    id of the NAPI instance that they came through.

    The packets have to be sent while the ring's thread polls.  No second thread or process can be
    relied on to do that: on one processor it makes the poller give the device up before it runs
    (NAPI_F_END_ON_RESCHED, 6.9), and the packets come in the ordinary way.  So the kernel sends
    them: beyond the first ten segments, a socket with a pacing rate is sent from a timer.
    """
    with ExitStack() as stack:
        pair.enter(pair.client_ns)
        client = stack.enter_context(socket.socket())  # stays in the namespace it was made in
        client.settimeout(5)
        pair.enter(pair.server_ns)
        listener = stack.enter_context(socket.create_server((pair.server_address, 0)))
        listener.settimeout(5)
        client.connect(listener.getsockname())
        server = stack.enter_context(listener.accept()[0])
        inbox = bytearray(_BYTES)
        address = ring.keep(inbox)
        client.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, _BYTES_PER_S)

        before = netstat(_COUNTER)
        client.sendall(bytes(_BYTES))  # fits into the socket's buffer, so it does not wait
        came = 0
        deadline = time.monotonic() + 10
        while came < _BYTES and time.monotonic() < deadline:
            ring.push(lib.IOX_PROBE_OP_RECV, fd=server.fileno(), addr=address, len=_BYTES)
            found = ring.collect(1)
            if len(found) != 1 or found[0].res <= 0:
                break
            came += found[0].res
        if came < _BYTES:
            raise OSError(errno.EPROTO, f"only {came} of {_BYTES} bytes came over the veth pair")
        grown = netstat(_COUNTER) - before
        return came, grown, server.getsockopt(socket.SOL_SOCKET, _SO_INCOMING_NAPI_ID)


def _until_polled(ring: RawRing, pair: Pair, patience_s: float) -> tuple[int, int, int]:
    """Transfers until one was polled: the last one's bytes and growth, and how many there were."""
    deadline = time.monotonic() + patience_s
    transfers = grown = 0
    while not transfers or (grown == 0 and time.monotonic() < deadline):
        came, grown, _ = _transfer(ring, pair)
        transfers += 1
    return came, grown, transfers


Evidence = dict[str, object]


def _observe() -> tuple[Evidence, Evidence]:
    """The counter's growth with NAPI registered on the ring, and without, as the control; then what
    came of static tracking."""
    pair = make_pair()
    flags = lib.IOX_SETUP_SINGLE_ISSUER | lib.IOX_SETUP_DEFER_TASKRUN
    with RawRing(flags=flags) as ring:
        control_came, control_grown, napi_id = _transfer(ring, pair)
    with RawRing(flags=flags) as ring:
        timeout_us, prefer = ffi.new("uint32_t *", _BUSY_POLL_US), ffi.new("uint8_t *", 1)
        registered = int(lib.iox_probe_napi(ring.raw, 1, timeout_us, prefer))
        came, grown, transfers = _until_polled(ring, pair, _PATIENCE_S)
    return {
        _COUNTER: grown,
        "bytes": came,
        "transfers": transfers,
        "control_without_napi": control_grown,
        "control_bytes": control_came,
        "register": registered,
        "busy_poll_us": _BUSY_POLL_US,
        "namespaces": pair.made_as,
    }, _static(pair, napi_id) if grown else {
        "not_tried": "the ring that looks for devices polled none"
    }


def _static(pair: Pair, napi_id: int) -> Evidence:
    """Whether a ring polls the device that it was told of, and looks for no other (6.13)."""
    with RawRing(flags=lib.IOX_SETUP_SINGLE_ISSUER | lib.IOX_SETUP_DEFER_TASKRUN) as ring:
        if (result := _napi(ring, _BUSY_POLL_US, _REGISTER, _TRACK_STATIC)) < 0:
            return {"result": result}
        try:
            _, untold, _ = _transfer(ring, pair)
            if (result := _napi(ring, _BUSY_POLL_US, _ADD_ID, napi_id)) < 0:
                return {"result": result}
            came, grown, transfers = _until_polled(ring, pair, _STATIC_PATIENCE_S)
        except OSError as error:
            return {"not_tried": error.strerror or str(error)}
        return {
            _COUNTER: grown,
            "bytes": came,
            "transfers": transfers,
            "control_without_device": untold,
            **_longest(ring, napi_id),
        }


def _napi(ring: RawRing, busy_poll_us: int, operation: int, parameter: int) -> int:
    """struct io_uring_napi; the byte after prefer_busy_poll is the operation (6.13), and was
    padding before, in which only zero is taken."""
    argument = ffi.new("uint32_t[4]", [busy_poll_us, 1 | operation << 8, parameter])
    return ring.register(_REGISTER_NAPI, argument)


def _longest(ring: RawRing, napi_id: int) -> Evidence:
    """For how long a wait polls that asks for 60 ms and in which nothing comes, by the time that it
    kept the processor: other tasks can end a poll early, so the longest of some counts.

    Since 7.1, and in stable releases of 2026, no poll is longer than 10 ms
    (io_napi_register_napi(), io_uring/napi.c).
    """
    _napi(ring, _LONG_POLL_US, _REGISTER, _TRACK_STATIC)  # which forgets the device
    _napi(ring, _LONG_POLL_US, _ADD_ID, napi_id)
    longest = 0
    for _ in range(_LONG_POLLS):
        before = time.thread_time_ns()
        ring.enter(wait=1, timeout_ms=1.5 * _LONG_POLL_US / 1000)
        longest = max(longest, (time.thread_time_ns() - before) // 1000)
    return {"idle_poll_us": longest, "idle_poll_asked_us": _LONG_POLL_US}


def main() -> int:
    """The child: evidence, or why there can be none, as JSON on standard output."""
    try:
        evidence, static = _observe()
        answer: dict[str, object] = {"evidence": evidence, "static": static}
    except (OSError, KeyError) as error:
        code = errno.errorcode.get(getattr(error, "errno", None) or 0, type(error).__name__)
        reason = getattr(error, "strerror", None) or str(error)
        answer = {"refused": f"{reason} ({code})"}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
