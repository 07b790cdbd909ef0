# SPDX-License-Identifier: MIT
"""``python napi_traffic.py``: the same traffic on one ring without, with, and without NAPI again.

A script, because it moves itself into new network namespaces.  It prints one JSON list with, for
each of the three rounds, the bytes that came and the growth of BusyPollRxPackets.
"""

from __future__ import annotations

import json
import socket
import sys
import time

from ioxide._probe.netns import make_pair, netstat
from ioxide._probe.rawring import BufferRing, RawRing
from ioxide._ring._native import ffi, lib
from tests.support import TIMEOUT

_BYTES = 60_000
_SO_MAX_PACING_RATE = 47


def _round(ring: RawRing, buffers: BufferRing, ends: tuple[socket.socket, socket.socket]) -> int:
    """Bytes that came through a multishot receive that is armed anew whenever it ends."""
    sender, receiver = ends
    sender.sendall(bytes(_BYTES))
    came, armed = 0, False
    while came < _BYTES:
        if not armed:
            ring.recv(receiver.fileno(), group=buffers.group, ioprio=lib.IOX_RECV_MULTISHOT)
            armed = True
        found = ring.collect(1)
        if not found:
            break
        for cqe in found:
            armed = armed and cqe.more
            if cqe.buffer_id is not None:
                came += cqe.res
                buffers.give(cqe.buffer_id)
    return came


def main() -> int:
    pair = make_pair()
    sender = socket.socket()
    pair.enter(pair.server_ns)
    with socket.create_server((pair.server_address, 0)) as listener:
        listener.settimeout(10)
        sender.settimeout(10)
        sender.connect(listener.getsockname())
        receiver = listener.accept()[0]
    # Sent by a timer of the kernel, while this thread does nothing but poll; all but the first ten
    # segments at most, which is why the rounds are as long as they are.
    sender.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, 400_000)
    rounds = []
    with (
        sender,
        receiver,
        RawRing(flags=lib.IOX_SETUP_SINGLE_ISSUER | lib.IOX_SETUP_DEFER_TASKRUN) as ring,
    ):
        buffers = ring.provide(group=1, entries=64, size=2048)
        timeout_us, prefer = ffi.new("uint32_t *"), ffi.new("uint8_t *")
        for enable in (None, 1, 0):
            if enable is not None:
                timeout_us[0], prefer[0] = 20_000, 1
                if lib.iox_probe_napi(ring.raw, enable, timeout_us, prefer) != 0:
                    return 1
            before = netstat("BusyPollRxPackets")
            # A poll ends when another task wants the processor: on a busy machine one transfer may
            # not do.
            deadline = time.monotonic() + (TIMEOUT if enable else 0)
            while True:
                came = _round(ring, buffers, (sender, receiver))
                grown = netstat("BusyPollRxPackets") - before
                if grown > 0 or time.monotonic() >= deadline:
                    break
            rounds.append((came, grown))
    print(json.dumps(rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
