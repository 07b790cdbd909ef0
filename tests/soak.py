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
from collections.abc import Iterator
from dataclasses import dataclass
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
    "pool": {"continuation_mode": ioxide.ContinuationMode.POOL, "pool_threads": 2},
    "pool_coalesced+incremental": {
        "continuation_mode": ioxide.ContinuationMode.POOL_COALESCED,
        "pool_threads": 2,
        "incremental": OWN,
    },
}
HELLO = 9
"""The first bytes of a connection: what to do, and eight that no other connection has."""


class Soaked(Exception):
    """The books do not balance."""


class Account:
    """What the handler of one connection took and wrote, in bytes."""

    def __init__(self, conn: ioxide.Connection) -> None:
        self.conn = conn
        self.hello = b""
        self.took = self.wrote = 0
        self.whole = False
        """The peer ended its side, so there is nothing that it sent and the handler did not take"""

    def write(self, data: bytes | memoryview) -> None:
        self.conn.write(data)
        self.wrote += len(data)

    async def recv(self, limit: int = 1 << 20) -> bytes:
        data = await self.conn.recv(limit)
        self.took += len(data)
        return data


class Handler:
    """Does what the first byte says."""

    def __init__(self) -> None:
        self.accounts: list[Account] = []
        self.peers: set[ioxide.Connection] = set()
        self.stopping = False

    @property
    def seen(self) -> Counter[str]:
        """How often each thing was to be done."""
        hellos = (one.hello for one in self.accounts if len(one.hello) == HELLO)
        return Counter(hello[:1].decode() for hello in hellos)

    async def __call__(self, conn: ioxide.Connection) -> None:
        account = Account(conn)
        self.accounts.append(account)
        self.peers.add(conn)
        try:
            while len(account.hello) < HELLO:
                part = await account.recv(HELLO - len(account.hello))
                if not part:
                    return
                account.hello += part
            await self.serve(account, account.hello[:1].decode())
        finally:
            self.peers.discard(conn)

    def ended(self, account: Account) -> None:
        """A read brought nothing: by the peer's FIN, unless this side ended it."""
        account.whole = not account.conn.closed and not self.stopping

    async def serve(self, account: Account, command: str) -> None:
        conn = account.conn
        if command == "E":
            while data := await account.recv():
                account.write(data)
                await conn.flush()
            self.ended(account)
        elif command == "Z":  # the same without a copy, holding each buffer for a while
            while True:
                async with conn.read() as slices:
                    account.took += sum(len(part) for part in slices)
                    if not slices:
                        self.ended(account)
                        return
                    await asyncio.sleep(0.002)
                    for part in slices:
                        account.write(part)
                await conn.flush()
        elif command == "S":
            while True:
                account.write(b"s" * 65536)
                await conn.flush()
        elif command == "R":
            raise ValueError("on purpose")
        elif command == "A":
            account.write(b"a" * 1000)
            conn.abort()
        elif command == "C":  # close somebody else's
            next(iter(self.peers.copy())).close()
        elif command == "T":  # leave the reactor and come back
            await asyncio.to_thread(time.sleep, 0.001)
            account.write(await account.recv())


@dataclass
class Line:
    """A client's connection, and the bytes that went over it as the client knows them."""

    socket: socket.socket
    hello: bytes
    sent: int = 0
    got: int = 0
    exact: bool = True
    """Whether the kernel took all that was to be sent, so that `sent` is the number."""
    ended: bool = False
    """The server ended the stream in order: a reset did not."""

    def send(self, data: bytes) -> None:
        self.exact = False
        self.socket.sendall(data)
        self.exact = True
        self.sent += len(data)

    def recv(self, limit: int = 1 << 16) -> bytes:
        data = self.socket.recv(limit)
        self.got += len(data)
        self.ended = not data
        return data

    def wrong(self, account: Account | None) -> str:
        """What does not agree with the handler's account; empty if all does."""
        took, wrote = (account.took, account.wrote) if account else (0, 0)
        if account and account.whole and self.exact and self.sent != took:
            return f"{self.hello!r}: {self.sent} bytes sent, {took} taken when the peer had ended"
        if self.exact and self.sent < took:
            return f"{self.hello!r}: {self.sent} bytes sent, {took} taken"
        if self.got > wrote or (self.ended and self.got != wrote):
            return f"{self.hello!r}: {wrote} bytes written, {self.got} came, ended {self.ended}"
        return ""


class Client(threading.Thread):
    """Does random things to one server until told to stop."""

    def __init__(self, port: int, seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.stop = port, stop
        self.draw = random.Random(seed)
        self.did: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.lines: list[Line] = []

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

    @contextlib.contextmanager
    def line(self, command: bytes, *, rcvbuf: int | None = None) -> Iterator[Line]:
        """A connection that has said what it wants."""
        with socket.socket() as client:
            if rcvbuf is not None:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
            client.settimeout(3)
            client.connect(("127.0.0.1", self.port))
            line = Line(client, command + self.draw.randbytes(HELLO - 1))
            self.lines.append(line)
            line.send(line.hello)
            yield line

    def echo(self) -> None:
        sent = self.draw.randbytes(self.draw.choice((1, 100, 5000, 60_000)))
        with self.line(self.draw.choice((b"E", b"Z"))) as line:
            received = b""
            with contextlib.suppress(ConnectionError):
                at = 0
                while at < len(sent):
                    size = self.draw.choice((1, 300, 4096))
                    line.send(sent[at : at + size])
                    at += size
                    received += line.recv() if self.draw.random() < 0.3 else b""
                line.socket.shutdown(socket.SHUT_WR)
                self.did["half-close"] += 1
                while part := line.recv():
                    received += part
                if received == sent:
                    self.did["echoed"] += 1
            if not sent.startswith(received):
                self.wrong.append(f"echo of {len(sent)} bytes: {len(received)} others came back")

    def burst(self) -> None:
        with self.line(b"E") as line:
            line.send(b"b" * 8000)

    def reset(self) -> None:
        with self.line(b"E") as line:
            line.send(b"r" * self.draw.choice((0, 10, 9000)))
            linger = struct.pack("ii", 1, 0)
            line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def stall(self) -> None:
        with self.line(b"Z") as line:
            line.send(b"q" * 20_000)
            self.stop.wait(0.05)

    def silent(self) -> None:
        with self.line(b"E") as line:
            while line.recv():  # ends with the read clock
                pass

    def slow_reader(self) -> None:
        with self.line(b"S", rcvbuf=4096):
            self.stop.wait(0.25)

    def command(self) -> None:
        command = self.draw.choice((b"R", b"A", b"C", b"T"))
        with self.line(command) as line:
            if command == b"T":
                line.send(b"x")
            while line.recv():
                pass

    def crowd(self) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(30):
                line = stack.enter_context(self.line(b"E"))
                line.send(b"c")


def check(server: ioxide.Server, handler: Handler, threads: list[Client], fds: int) -> None:
    """Everything has to be where it was: raises Soaked with all that is not."""
    stats = server.stats()
    groups = OWN.max_connections if server.config.incremental else 0
    took = sum(account.took for account in handler.accounts)
    wrote = sum(account.wrote for account in handler.accounts)
    accounts = {account.hello: account for account in handler.accounts}
    lines = [line for thread in threads for line in thread.lines]
    books: list[tuple[str, object, object]] = [
        ("connections closed", stats.accepts, stats.closes),
        ("connections now", 0, stats.connections_now),
        ("bytes received", stats.bytes_received, took + stats.bytes_unread),
        ("bytes written", wrote, stats.bytes_sent + stats.bytes_unsent),
        ("lines", [], list(filter(None, (line.wrong(accounts.get(line.hello)) for line in lines)))),
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
        ("bytes kept alive", 0, stats.held_bytes_now),
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
        handler.stopping = True
        server.stop()
    stop.set()
    for thread in threads:
        thread.join(30)
        if thread.is_alive():
            raise Soaked("a client never came back: the server left it hanging")
    handler.stopping = True
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
    happened["bytes_taken"] = stats.bytes_received - stats.bytes_unread
    happened["bytes_unread"] = stats.bytes_unread
    happened["bytes_unsent"] = stats.bytes_unsent
    happened["taken_whole"] = sum(account.whole for account in handler.accounts)
    happened["ended_in_order"] = sum(line.ended for thread in threads for line in thread.lines)
    return happened


REQUIRED = (
    "echoed",
    "taken_whole",
    "ended_in_order",
    "bytes_unread",
    "bytes_unsent",
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
