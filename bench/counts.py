# SPDX-License-Identifier: MIT
"""What a request costs, counted: the same on a busy machine as on a quiet one.

Each count is a difference between two loads of one server over as many connections, divided by the
difference of their requests: what connecting, asking and starting cost is in both.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import Void
from bench.native import callgrind_library
from bench.process import CONNECTIONS, Server, running

SMALL = 5 * CONNECTIONS
"""Requests of the smaller one of two loads."""
LARGE = 45 * CONNECTIONS
MAX_SLICES = 100
MAX_NOISE = 1.1
"""How much more the dearest slice may cost than the cheapest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What serves, over how many connections."""

    settings: Mapping[str, object] = field(default_factory=dict)
    """Of `ioxide.ServerConfig`, where it is a `Server`."""
    style: str = "handler"
    """``handler`` is a `Server`; ``protocol`` and ``streams`` are programs on its loop."""
    connections: int = CONNECTIONS
    loop: str = "ioxide"
    """Of `bench.peer`, for another style than ``handler``."""
    paths: Sequence[Path] = ()
    """Directories of libraries that it needs."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(
        self, *, wrapper: Sequence[str] = (), arguments: Sequence[str] = (), in_band: bool = False
    ) -> contextlib.AbstractContextManager[Server]:
        """Start it."""
        module = "bench.serve"
        if self.style != "handler":
            module = "bench.peer"
            arguments = [self.loop, self.style, *arguments]
        return running(
            self.settings,
            wrapper=wrapper,
            arguments=arguments,
            batch=True,
            in_band=in_band,
            module=module,
            environment=self.environment,
            paths=self.paths,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Of one plaintext request, at 64 connections."""

    enters: float
    posts: float
    handles: float
    wake_writes: float
    wakeups: float
    completions_per_enter: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructions:
    """User instructions of one request: the least of several slices, and the most."""

    low: float
    high: float

    @classmethod
    def of(cls, slices: Sequence[float]) -> Instructions:
        """What the slices say; raises `Void` when they do not agree within 10 %."""
        if len(slices) < 3:
            raise Void(f"{len(slices)} slices are too few to tell noise from cost")
        low, high = min(slices), max(slices)
        if low <= 0 or high > MAX_NOISE * low:
            raise Void(f"instructions per request vary from {low:.0f} to {high:.0f}")
        return cls(low=low, high=high)


def per_request(small: float, large: float, requests: int) -> float:
    """What a request adds."""
    if requests <= 0:
        raise Void("the two loads do not differ")
    return (large - small) / requests


def check_clean(before: Mapping[str, float], after: Mapping[str, float]) -> None:
    """Raise `Void` when the counters say that something else was measured than was meant."""
    for name in ("recv_enobufs", "handler_faults", "callback_faults", "memory_faults", "aborts"):
        if grown := after.get(name, 0) - before.get(name, 0):
            raise Void(f"{name} grew by {grown:.0f} while it was measured")


def _added(server: Server, requests: int) -> dict[str, float]:
    """What so many requests added to each count."""
    before = server.settled()
    load = server.load(requests=requests, batches=True)
    after = server.settled()
    check_clean(before, after)
    if load.requests != requests:
        raise Void(f"{load.requests} requests were made instead of {requests}")
    return {name: after[name] - before[name] for name in after}


def _slice(server: Server) -> dict[str, float]:
    """What a request adds to each count."""
    small, large = _added(server, SMALL), _added(server, LARGE)
    return {name: per_request(small[name], large[name], LARGE - SMALL) for name in small}


def whole(enters: Sequence[float]) -> bool:
    """Whether some slices had whole batches: those that took the least agree, exactly."""
    return enters.count(min(enters)) >= 3


def count(settings: Mapping[str, object], *, slices: int = 10) -> Counts:
    """Counters of the server itself, and the asyncio handles it made."""
    with running(settings, arguments=["--count-handles"], batch=True) as server:
        _added(server, SMALL)  # to warm up
        parts: list[dict[str, float]] = []
        while len(parts) < slices or not whole([part["enters"] for part in parts]):
            if len(parts) >= MAX_SLICES:
                raise Void(
                    f"in {len(parts)} slices the machine tore the batches too often: a quieter one "
                    "is needed, or permission to use SCHED_FIFO (CAP_SYS_NICE, or `ulimit -r 1`)"
                )
            parts.append(_slice(server))
    # A batch that the machine tore costs more enters than the server needs; none costs fewer.
    each = min(parts, key=lambda part: part["enters"])
    if each["enters"] <= 0 or each["sends"] <= 0:
        raise Void("the counters did not see the requests")
    return Counts(
        enters=each["enters"],
        posts=max(part["posts"] for part in parts),
        handles=max(part["handles"] for part in parts),
        wake_writes=max(part["wake_writes"] for part in parts),
        wakeups=each["wakeups"],
        completions_per_enter=each["cqes"] / each["enters"],
    )


def total_calls(table: str) -> int:
    """The sum of ``strace -c``'s column of calls."""
    rows = re.findall(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$", table, re.MULTILINE)
    calls = sum(int(number) for number, name in rows if name != "total")
    if not any(name == "io_uring_enter" for _, name in rows):
        raise Void(f"strace saw no io_uring_enter:\n{table}")
    return calls


def system_calls(program: Program, *, limit: float) -> float:
    """System calls of a request: the least of three tries, or the first one within `limit`.

    A batch that the machine tore costs more than the server needs, so one good try is enough.
    """
    tries: list[float] = []
    while len(tries) < 3 and not (tries and tries[-1] <= limit):
        tries.append(_system_calls(program))
    return min(tries)


def _system_calls(program: Program) -> float:
    """As strace sees them: two processes, two numbers of requests."""
    _need("strace")
    totals = []
    for requests in (SMALL, 5 * LARGE):
        with tempfile.NamedTemporaryFile("r", prefix="ioxide-strace-") as table:
            wrapper = ["strace", "-f", "-c", "-qq", "-o", table.name]
            with program.run(wrapper=wrapper) as server:
                server.load(requests=requests, connections=program.connections, batches=True)
            totals.append(total_calls(table.read()))
    return per_request(totals[0], totals[1], 5 * LARGE - SMALL)


def summed(text: str) -> int:
    """The number of instructions in one of callgrind's files."""
    found = re.findall(r"^(?:summary|totals): (\d+)$", text, re.MULTILINE)
    if not found or int(found[0]) == 0:
        raise Void("callgrind's file has no sum")
    return int(found[0])


def instructions(program: Program, *, slices: int = 5) -> Instructions:
    """User instructions of a request, counted by callgrind, in one process that has warmed up."""
    _need("valgrind")
    found: list[float] = []
    with tempfile.TemporaryDirectory(prefix="ioxide-callgrind-") as scratch:
        wrapper = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no"]
        wrapper += [f"--callgrind-out-file={scratch}/out"]
        library = ["--callgrind", str(callgrind_library())]
        with program.run(wrapper=wrapper, arguments=library, in_band=True) as server:

            def load(requests: int) -> None:
                server.load(requests=requests, connections=program.connections, batches=True)

            server.ask("count")
            load(LARGE)
            files: set[Path] = set()

            def dump() -> int:
                server.ask("dump x")
                new = set(Path(scratch).glob("out.*")) - files  # `out` itself is of the very end
                files.update(new)
                return sum(summed(path.read_text()) for path in new)

            dump()
            while not agreed(found, slices) and len(found) < 3 * slices:
                totals = []
                for requests in (SMALL, LARGE):
                    before = server.settled()
                    load(requests)
                    check_clean(before, server.settled())
                    totals.append(dump())
                found.append(per_request(totals[0], totals[1], LARGE - SMALL))
    return Instructions.of(sorted(found)[:slices])


def agreed(found: Sequence[float], slices: int) -> bool:
    """Whether the least so many of them agree. A machine that does other things tears turns of the
    loop apart, which costs more; nothing costs less."""
    least = sorted(found)[:slices]
    return len(least) == slices and least[-1] <= MAX_NOISE * least[0]


def _need(program: str) -> None:
    if shutil.which(program) is None:
        raise Void(f"{program} is not installed: make setup installs it")
