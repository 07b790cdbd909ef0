# SPDX-License-Identifier: MIT
"""``make bench-memory``: the memory of loops and connections, idle, busy, and 2 s later.

On ioxide, uvloop and asyncio. Each cell is measured in a process of its own, whose peer is another.
What is measured is what the process itself has resident (RssAnon, proc_pid_status(5)): sockets are
the kernel's memory.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import multiprocessing
import resource
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import page, peers
from bench.affinity import machine
from bench.errors import Void
from bench.native import ROOT
from bench.peer import LOOPS

PAGE = ROOT / "docs" / "peers.md"
COMPARED = ("ioxide", "uvloop", "asyncio")
AT_REST = 20
CONNECTIONS = 1000
MANY = 10_000
REST = 2.0


@dataclass(frozen=True, slots=True)
class Row:
    """So many connections, each of which echoes so many messages of so many bytes."""

    count: int
    size: int = 0
    rounds: int = 0

    def __str__(self) -> str:
        size = f"{self.size >> 10} KiB" if self.size >= 1024 else f"{self.size} bytes"
        return f"{self.count:,} connections, {self.rounds} x {size} on each"


BUSY = (
    Row(1, 1 << 16, 4000),
    Row(64, 1 << 16, 60),
    Row(CONNECTIONS, 1 << 16, 4),
    Row(MANY, 64, 1),
    Row(1, 1 << 20, 200),
)


def resident() -> int:
    """KiB of this process's own memory that are resident."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = transport.write  # type: ignore[attr-defined]  # uvloop's is no Transport

    def data_received(self, data: bytes) -> None:
        self.write(data)


def raise_limit() -> None:
    """Let this process open as many descriptors as it may."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def peer(port: int, row: Row, pipe: Any) -> None:
    """Open the connections, have each echo its messages, and keep them open."""
    raise_limit()
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(row.count)]
    message = bytes(min(row.size, 1 << 16))  # no more than both ends' socket buffers hold
    for _ in range(row.rounds):
        for _ in range(row.size // len(message)):
            for client in clients:
                client.sendall(message)
            for client in clients:
                got = 0
                while got < len(message):
                    got += len(client.recv(1 << 20)) or 1 << 40
                if got > len(message):
                    return  # closed, or more than was asked for: the other side sees no answer
    pipe.send("done")
    pipe.recv()


def factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes such a loop; uvloop is found in the libraries of the peers' benchmark."""
    sys.path.append(str(peers.libraries()))
    module, _, name = LOOPS[loop].partition(":")
    found: Callable[[], asyncio.AbstractEventLoop] = getattr(importlib.import_module(module), name)
    return found


def busy(loop: str, row: Row, answer: Any) -> None:
    """Send KiB beside those of an empty loop: at the end of the load, and `REST` s later."""
    raise_limit()

    async def main() -> tuple[int, int]:
        running = asyncio.get_running_loop()
        server = await running.create_server(Echo, "127.0.0.1", 0, backlog=CONNECTIONS)
        ours, theirs = multiprocessing.Pipe()
        port = server.sockets[0].getsockname()[1]
        process = multiprocessing.get_context("spawn").Process(
            target=peer, args=(port, row, theirs)
        )
        process.start()
        theirs.close()
        await asyncio.to_thread(lambda: None)  # the thread that waits below
        before = resident()
        await asyncio.to_thread(ours.recv)
        end = resident()
        await asyncio.sleep(REST)
        later = resident()
        ours.send("end")
        await asyncio.to_thread(process.join)
        return end - before, later - before

    with asyncio.Runner(loop_factory=factory(loop)) as runner:
        answer.send(runner.run(main()))


def loops(loop: str, answer: Any) -> None:
    """Send KiB of one loop that has done nothing."""
    make = factory(loop)
    make().close()
    before = resident()
    made = [make() for _ in range(AT_REST)]
    for one in made:
        one.run_until_complete(asyncio.sleep(0))
    answer.send((resident() - before) / AT_REST)
    for one in made:
        one.close()


def _in_a_process(target: Callable[..., None], *args: Any) -> Any:
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


def _amount(kib: float) -> str:
    return f"{kib / 1024:.1f} MiB" if abs(kib) >= 1024 else f"{kib:.0f} KiB"


def table(cells: Mapping[str, Mapping[str, str]]) -> str:
    """A row for each measurement, a column for each loop."""
    lines = [f"| | {' | '.join(COMPARED)} |", "|---|" + "---|" * len(COMPARED)]
    for row, found in cells.items():
        lines.append(f"| {row} | {' | '.join(found[loop] for loop in COMPARED)} |")
    return "\n".join(lines)


def run(*, write: bool) -> int:
    """Measure, print, and write the page; nothing is judged."""
    cells: dict[str, dict[str, str]] = {}

    def put(row: str, loop: str, text: str) -> None:
        cells.setdefault(row, {})[loop] = text
        print(f"{loop}: {row}: {text}", flush=True)

    measure = functools.partial(_in_a_process, busy)
    for loop in COMPARED:
        put("a loop at rest", loop, _amount(_in_a_process(loops, loop)))
        for count in (CONNECTIONS, MANY):
            idle = measure(loop, Row(count))[1] / count
            put(f"an idle connection of {count:,}", loop, f"{idle:.1f} KiB")
        for row in BUSY:
            end, later = measure(loop, row)
            put(f"{row}: at the end, {REST:g} s later", loop, f"{_amount(end)}, {_amount(later)}")
    page.show(PAGE, "memory", f"{machine()}.\n\n{table(cells)}", write=write)
    return 0
