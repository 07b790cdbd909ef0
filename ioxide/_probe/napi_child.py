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


def _observe() -> dict[str, object]:
    """The counter's growth with NAPI registered on the ring, and without, as the control."""
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
        "static_tracking": _static(pair, napi_id) if grown else "not tried",
    }


def _static(pair: Pair, napi_id: int) -> str:
    """Whether a ring polls the one device that it was told of, and looks for no other (6.13)."""
    with RawRing(flags=lib.IOX_SETUP_SINGLE_ISSUER | lib.IOX_SETUP_DEFER_TASKRUN) as ring:
        for operation, parameter in ((_REGISTER, _TRACK_STATIC), (_ADD_ID, napi_id)):
            # struct io_uring_napi; the byte after prefer_busy_poll is the operation (6.13), and was
            # padding before, in which only zero is taken.
            argument = ffi.new("uint32_t[4]", [_BUSY_POLL_US, 1 | operation << 8, parameter])
            result = int(lib.iox_probe_register(ring.raw, _REGISTER_NAPI, argument, 1))
            if result < 0:
                return f"refused with {errno.errorcode.get(-result, str(result))}"
        try:
            if _until_polled(ring, pair, _STATIC_PATIENCE_S)[1]:
                return "polled"
        except OSError as error:  # no reason to doubt the other way
            return f"could not be tried: {error.strerror}"
        return "taken, and nothing was polled"


def main() -> int:
    """The child: evidence, or why there can be none, as JSON on standard output."""
    try:
        answer: dict[str, object] = {"evidence": _observe()}
    except (OSError, KeyError) as error:
        code = errno.errorcode.get(getattr(error, "errno", None) or 0, type(error).__name__)
        reason = getattr(error, "strerror", None) or str(error)
        answer = {"refused": f"{reason} ({code})"}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
