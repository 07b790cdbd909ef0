# SPDX-License-Identifier: MIT
"""``python napi_reactor.py [SERVERS CLIENTS]``: the same upload to a reactor without, with, and
without NAPI again, over a veth pair or over these two devices, which are wired to each other.

As napi_traffic.py, but through `ServerConfig.napi_busy_poll_us` instead of a ring of its own.
"""

from __future__ import annotations

import json
import socket
import sys
import time

import ioxide
from ioxide._probe.netns import Pair, make_pair, netstat
from tests.support import TIMEOUT

_BYTES = 60_000
_SO_MAX_PACING_RATE = 47


def _upload(pair: Pair, port: int) -> int:
    """What the reactor says it got; sent by a timer of the kernel, while both threads wait."""
    pair.enter(pair.client_ns)
    with socket.socket() as client:
        pair.enter(pair.server_ns)
        client.settimeout(60)
        client.connect((pair.server_address, port))
        client.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, 400_000)
        client.sendall(bytes(_BYTES))
        client.shutdown(socket.SHUT_WR)
        return int(client.recv(100))


async def _count(conn: ioxide.Connection) -> None:
    total = 0
    while data := await conn.recv():
        total += len(data)
    conn.write(b"%d" % total)


def _round(pair: Pair, busy_poll_us: int) -> tuple[int, int]:
    config = ioxide.ServerConfig(
        port=0,
        ring_entries=64,
        cq_entries=1024,
        recv_slots=64,
        recv_buffer_size=4096,
        napi_busy_poll_us=busy_poll_us,
        napi_prefer_busy_poll=busy_poll_us > 0,
    )
    listener = socket.create_server((pair.server_address, 0))
    reactor = ioxide.Reactor(_count, config, [listener])
    port = listener.getsockname()[1]
    reactor.start()  # its thread is born into this namespace
    came = grown = 0
    try:
        before = netstat("BusyPollRxPackets")
        # A poll ends when another task wants the processor: on a busy machine one may not do.
        deadline = time.monotonic() + (TIMEOUT if busy_poll_us else 0)
        while True:
            came = _upload(pair, port)
            grown = netstat("BusyPollRxPackets") - before
            if grown > 0 or time.monotonic() >= deadline:
                break
    finally:
        reactor.stop()
        reactor.join(60)
    return came, grown


def main() -> int:
    pair = make_pair((sys.argv[1], sys.argv[2]) if sys.argv[1:] else None)
    pair.enter(pair.server_ns)
    print(json.dumps([_round(pair, busy_poll_us) for busy_poll_us in (0, 20_000, 0)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
