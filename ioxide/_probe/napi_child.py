# SPDX-License-Identifier: MIT
"""``python -m ioxide._probe.napi_child``: the half of the NAPI experiment that needs namespaces."""

from __future__ import annotations

import errno
import json
import socket
import sys
import threading
import time
from contextlib import ExitStack

from ioxide._probe.netns import VethPair, make_pair, netstat
from ioxide._probe.rawring import RawRing
from ioxide._ring._native import ffi, lib

_COUNTER = "BusyPollRxPackets"
_BUSY_POLL_US = 20_000
_PAUSE_S = 0.003
_ROUNDS = 24
_ENOUGH = 8


def _client(sock: socket.socket, rounds: int) -> None:
    try:
        for _ in range(rounds):
            # The server must be polling when the packet is sent, so it gets time to begin.
            time.sleep(_PAUSE_S)
            sock.sendall(b"ping")
            if not sock.recv(4):
                return
    except OSError:
        return  # the server's evidence tells how far it came


def _round_trips(ring: RawRing, pair: VethPair, enough: int) -> tuple[int, int]:
    """Ping-pong, the server's side received by ``ring``: round trips, and the counter's growth.

    It ends early when the counter has grown by ``enough``.
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
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        address = ring.keep(bytearray(4))

        before = netstat(_COUNTER)
        threading.Thread(target=_client, args=(client, _ROUNDS), daemon=True).start()
        rounds = grown = 0
        deadline = time.monotonic() + 10
        while rounds < _ROUNDS and grown < enough and time.monotonic() < deadline:
            ring.push(lib.IOX_PROBE_OP_RECV, fd=server.fileno(), addr=address, len=4)
            if [c.res for c in ring.collect(1)] != [4]:
                break
            rounds += 1
            grown = netstat(_COUNTER) - before
            server.sendall(b"pong")
        return rounds, grown


def _observe() -> dict[str, object]:
    """The counter's growth with NAPI registered on the ring, and without, as the control."""
    pair = make_pair()
    flags = lib.IOX_SETUP_SINGLE_ISSUER | lib.IOX_SETUP_DEFER_TASKRUN
    with RawRing(flags=flags) as ring:
        control = _round_trips(ring, pair, enough=1)
    with RawRing(flags=flags) as ring:
        timeout_us, prefer = ffi.new("uint32_t *", _BUSY_POLL_US), ffi.new("uint8_t *", 1)
        registered = int(lib.iox_probe_napi(ring.raw, 1, timeout_us, prefer))
        rounds, grown = _round_trips(ring, pair, enough=_ENOUGH)
    return {
        _COUNTER: grown,
        "round_trips": rounds,
        "control_without_napi": control[1],
        "control_round_trips": control[0],
        "register": registered,
        "busy_poll_us": _BUSY_POLL_US,
        "namespaces": pair.made_as,
    }


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
