# SPDX-License-Identifier: MIT
"""``python -m tests.soak --minutes 2``: everything at random at once, then the books must balance.

Clients connect, echo, half-close, reset, stall, burst, read slowly or not at all, and send commands
that make handlers raise, abort and hoard.  Servers in every mode start and stop under them, with
rings so small that buffers run out, completion queues overflow and connections are shed.  After
each stop descriptors, buffers, group ids, notifications, connections and bytes have to add up.

Exit status: 0 all of that held; 1 something did not; 3 void, because one of the conditions was not
provoked often enough to prove anything.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from typing import Any

import ioxide
from tests.support import open_fds

ENOUGH = 20
"""So often each condition has to have happened."""

BASE = ioxide.ServerConfig(
    port=0,
    ring_entries=8,
    cq_entries=16,
    recv_slots=32,
    recv_buffer_size=512,
    recv_queue_entries=4,
    max_connections=24,
    read_timeout_ms=400,
    send_timeout_ms=150,
    stop_timeout_ms=300,
    write_slab_size=4096,
    pool_max=8,
)
OWN = ioxide.IncrementalConfig(max_connections=24, recv_slots=4, recv_buffer_size=512)
MODES: dict[str, dict[str, Any]] = {
    "shared": {},
    "shared+zc": {"zero_copy_send": True},
    "bundle": {"recv_bundle": True},
    "incremental": {"incremental": OWN},
    "incremental+zc": {"incremental": OWN, "zero_copy_send": True},
    "shared+segmented": {"write_overflow": ioxide.WriteOverflow.SEGMENTED},
    "incremental+segmented+zc": {
        "incremental": OWN,
        "write_overflow": ioxide.WriteOverflow.SEGMENTED,
        "zero_copy_send": True,
    },
    "posted": {"continuation_mode": ioxide.ContinuationMode.POSTED},
}


class Soaked(Exception):
    """The books do not balance."""


class Handler:
    """Does what the first byte says."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.peers: set[ioxide.Connection] = set()

    async def __call__(self, conn: ioxide.Connection) -> None:
        self.peers.add(conn)
        try:
            command = await conn.recv(1)
            await self.serve(conn, command.decode("latin-1"))
        finally:
            self.peers.discard(conn)

    async def serve(self, conn: ioxide.Connection, command: str) -> None:
        self.seen[command] += 1
        if command == "E":
            while data := await conn.recv():
                conn.write(data)
                await conn.flush()
        elif command == "Z":  # the same without a copy, holding each buffer for a while
            while True:
                async with conn.read() as slices:
                    if not slices:
                        return
                    await asyncio.sleep(0.002)
                    for part in slices:
                        conn.write(part)
                await conn.flush()
        elif command == "S":
            while True:
                conn.write(b"s" * 65536)
                await conn.flush()
        elif command == "R":
            raise ValueError("on purpose")
        elif command == "A":
            conn.write(b"a" * 1000)
            conn.abort()
        elif command == "C":  # close somebody else's
            next(iter(self.peers)).close()
        elif command == "T":  # leave the reactor and come back
            await asyncio.to_thread(time.sleep, 0.001)
            conn.write(await conn.recv())


class Client(threading.Thread):
    """Does random things to one server until told to stop."""

    def __init__(self, port: int, seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.stop = port, stop
        self.draw = random.Random(seed)
        self.did: Counter[str] = Counter()
        self.wrong: list[str] = []

    def run(self) -> None:
        actions = [self.echo, self.echo, self.burst, self.reset, self.stall, self.silent]
        actions += [self.slow_reader, self.command, self.crowd]
        while not self.stop.is_set():
            action = self.draw.choice(actions)
            # The server may shed, time out, abort or stop at any moment: an error of the socket is
            # no finding.  Wrong bytes are, and so is whatever does not add up in the end.
            with contextlib.suppress(OSError):
                action()
            self.did[action.__name__] += 1

    def connect(self) -> socket.socket:
        client = socket.socket()
        client.settimeout(3)
        try:
            client.connect(("127.0.0.1", self.port))
        except OSError:
            client.close()
            raise
        return client

    def echo(self) -> None:
        sent = self.draw.randbytes(self.draw.choice((1, 100, 5000, 60_000)))
        with self.connect() as client:
            client.sendall(self.draw.choice((b"E", b"Z")))
            received = b""
            with contextlib.suppress(ConnectionError):
                at = 0
                while at < len(sent):
                    size = self.draw.choice((1, 300, 4096))
                    client.sendall(sent[at : at + size])
                    at += size
                    received += client.recv(1 << 16) if self.draw.random() < 0.3 else b""
                client.shutdown(socket.SHUT_WR)
                self.did["half-close"] += 1
                while part := client.recv(1 << 16):
                    received += part
                if received == sent:
                    self.did["echoed"] += 1
            if not sent.startswith(received):
                self.wrong.append(f"echo of {len(sent)} bytes: {len(received)} others came back")

    def burst(self) -> None:
        with self.connect() as client:
            client.sendall(b"E" + b"b" * 8000)

    def reset(self) -> None:
        with self.connect() as client:
            client.sendall(b"E" + b"r" * self.draw.choice((0, 10, 9000)))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def stall(self) -> None:
        with self.connect() as client:
            client.sendall(b"Z" + b"q" * 20_000)
            self.stop.wait(0.05)

    def silent(self) -> None:
        with self.connect() as client:
            client.sendall(b"E")
            while client.recv(4096):  # ends with the read clock
                pass

    def slow_reader(self) -> None:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(3)
            client.connect(("127.0.0.1", self.port))
            client.sendall(b"S")
            self.stop.wait(0.25)

    def command(self) -> None:
        with self.connect() as client:
            client.sendall(self.draw.choice((b"R", b"A", b"C", b"Tx")))
            while client.recv(4096):
                pass

    def crowd(self) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(30):
                client = stack.enter_context(self.connect())
                client.sendall(b"Ec")


def check(server: ioxide.Server, handler: Handler, threads: list[Client], fds: int) -> None:
    """Everything has to be where it was: raises Soaked with all that is not."""
    stats = server.stats()
    groups = OWN.max_connections if server.config.incremental else 0
    books: list[tuple[str, object, object]] = [
        ("connections closed", stats.accepts, stats.closes),
        ("connections now", 0, stats.connections_now),
        ("buffers held", 0, stats.buffers_held_now),
        ("slices lent", 0, stats.slices_lent_now),
        ("group ids free", groups, stats.groups_free_now),
        ("notifications", stats.sends_zc, stats.zc_notifs),
        ("completions of unknown origin", 0, stats.unknown_cqes + stats.stale_cqes),
        ("resumptions that raised", 0, stats.wakeup_faults),
        ("handler faults", handler.seen["R"], stats.handler_faults),
        ("wrong bytes", [], [wrong for thread in threads for wrong in thread.wrong]),
        ("listeners", 0, stats.listeners_armed_now),
        ("memory faults", 0, stats.memory_faults),
    ]
    deadline = time.monotonic() + 5
    while open_fds() > fds and time.monotonic() < deadline:
        time.sleep(0.01)
    books.append(("descriptors", fds, open_fds()))
    wrong = [
        f"{what}: {expected} expected, {got} found"
        for what, expected, got in books
        if expected != got
    ]
    if wrong:
        raise Soaked("; ".join(wrong))


def life(mode: str, seed: int, seconds: float) -> Counter[str]:
    """One server's life under fire; what happened in it."""
    fds = open_fds()
    handler = Handler()
    stop = threading.Event()
    server = ioxide.Server(handler, BASE.replace(**MODES[mode]))
    server.start()
    threads = [Client(server.port, seed * 100 + number, stop) for number in range(8)]
    for thread in threads:
        thread.start()
    stop.wait(seconds)
    if seed % 2:  # stop under fire, or after it
        server.stop()
    stop.set()
    for thread in threads:
        thread.join(30)
        if thread.is_alive():
            raise Soaked("a client never came back: the server left it hanging")
    server.stop()
    check(server, handler, threads, fds)
    stats = server.stats()
    happened: Counter[str] = Counter()
    for thread in threads:
        happened.update(thread.did)
    for name in (
        "accepts_shed",
        "recv_enobufs",
        "recv_pauses",
        "cq_overflow_events",
        "send_timeouts",
        "read_timeouts",
        "handler_faults",
        "partial_sends",
    ):
        happened[name] = getattr(stats, name)
    happened["lives"] = 1
    return happened


REQUIRED = (
    "echoed",
    "half-close",
    "burst",
    "reset",
    "stall",
    "slow_reader",
    "lives",
    "accepts_shed",
    "recv_enobufs",
    "recv_pauses",
    "cq_overflow_events",
    "send_timeouts",
    "read_timeouts",
    "handler_faults",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first life; printed on failure")
    parser.add_argument("--mode", choices=MODES, action="append", help="default: all in turn")
    args = parser.parse_args()
    logging.getLogger("ioxide").setLevel(logging.CRITICAL)  # faults on purpose, by the hundred
    modes = args.mode or list(MODES)
    total: Counter[str] = Counter()
    end = time.monotonic() + args.minutes * 60
    seed = args.seed
    while time.monotonic() < end:
        mode = modes[seed % len(modes)]
        try:
            total += life(mode, seed, 2.0)
        except Soaked as error:
            print(f"soak: {mode}, --seed {seed}: {error}")
            return 1
        seed += 1
    for name, count in sorted(total.items()):
        print(f"{count:8} {name}")
    missing = [name for name in REQUIRED if total[name] < ENOUGH]
    if missing:
        print(f"soak: void: fewer than {ENOUGH} of {', '.join(missing)}; give it more --minutes")
        return 3
    print(f"soak: {total['lives']} lives, and everything added up")
    return 0


if __name__ == "__main__":
    sys.exit(main())
