# SPDX-License-Identifier: MIT
"""``make bench-memory``: the memory of loops and connections, idle, busy, and 2 s later.

Each row is measured in a process of its own, whose peer is another.  What is measured is what the
process itself has resident (RssAnon, proc_pid_status(5)): sockets are the kernel's memory.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ioxide
from bench.errors import Void

LOOPS = 20
CONNECTIONS = 1000
REST = 2.0
BUSY = ((1, 1 << 16, 4000), (64, 1 << 16, 60), (CONNECTIONS, 1 << 16, 4), (1, 1 << 20, 200))
"""Connections, bytes of a message, and how often each connection echoes one."""


def resident() -> int:
    """KiB of this process's own memory that are resident."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def raise_limit() -> None:
    """Let this process open as many descriptors as it may."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def peer(port: int, count: int, size: int, rounds: int, pipe: Any) -> None:
    """Open `count` connections, have each echo `rounds` messages, and keep them open."""
    raise_limit()
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    message = bytes(min(size, 1 << 16))  # no more than both ends' socket buffers hold
    for _ in range(rounds):
        for _ in range(size // len(message) if size else 0):
            for client in clients:
                client.sendall(message)
            for client in clients:
                got = 0
                while got < len(message):
                    got += len(client.recv(1 << 20)) or 1 << 40
    pipe.send("done")
    pipe.recv()


def busy(count: int, size: int, rounds: int, answer: Any) -> None:
    """Send KiB beside those of an empty loop: at the end of the load, and `REST` s later."""
    raise_limit()

    async def main() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=CONNECTIONS)
        ours, theirs = multiprocessing.Pipe()
        port = server.sockets[0].getsockname()[1]
        process = multiprocessing.get_context("spawn").Process(
            target=peer, args=(port, count, size, rounds, theirs)
        )
        process.start()
        await asyncio.to_thread(lambda: None)  # the thread that waits below
        before = resident()
        await asyncio.to_thread(ours.recv)
        end = resident()
        await asyncio.sleep(REST)
        later = resident()
        ours.send("end")
        await asyncio.to_thread(process.join)
        return end - before, later - before

    answer.send(ioxide.run(main()))


def loops(answer: Any) -> None:
    """Send KiB of one loop that has done nothing."""
    ioxide.new_event_loop().close()
    before = resident()
    made = [ioxide.new_event_loop() for _ in range(LOOPS)]
    for loop in made:
        loop.run_until_complete(asyncio.sleep(0))
    answer.send((resident() - before) / LOOPS)
    for loop in made:
        loop.close()


def _in_a_process(target: Callable[..., None], *args: int) -> Any:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=target, args=(*args, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise Void(f"{target.__name__}{args} ended without an answer") from None
    finally:
        process.join()


def run() -> int:
    """Print a row for each measurement; nothing is judged."""
    print(f"a loop: {_in_a_process(loops):.0f} KiB")
    idle = _in_a_process(busy, CONNECTIONS, 0, 0)[1] / CONNECTIONS
    print(f"an idle connection: {idle:.1f} KiB ({CONNECTIONS} of them)")
    for count, size, rounds in BUSY:
        end, later = _in_a_process(busy, count, size, rounds)
        print(
            f"{count:4} connections, messages of {size >> 10:4} KiB: {end / 1024:6.1f} MiB at the "
            f"end, {later / 1024:6.1f} MiB {REST:g} s later"
        )
    return 0
