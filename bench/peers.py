# SPDX-License-Identifier: MIT
"""``python -m bench peers``: the plaintext server on ioxide, beside asyncio's own loop and uvloop.

Paired rounds on one core, at 64 connections and at one; the tables go into docs/peers.md.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from bench import page
from bench.affinity import machine
from bench.errors import Void
from bench.native import BUILD, ROOT
from bench.peer import ASGI_ANSWER
from bench.process import CONNECTIONS, Load, Server, running
from bench.rounds import Spread, interleaved

ROUNDS = 7
SECONDS = 1.0
PAGE = ROOT / "docs" / "peers.md"
OURS = "ioxide handler"
SERVERS = {
    OURS: None,
    "ioxide loop, Protocol": ("ioxide", "protocol"),
    "ioxide loop, streams": ("ioxide", "streams"),
    "uvloop Protocol": ("uvloop", "protocol"),
    "uvloop streams": ("uvloop", "streams"),
    "asyncio Protocol": ("asyncio", "protocol"),
    "asyncio streams": ("asyncio", "streams"),
    "uvicorn on ioxide": ("ioxide", "uvicorn"),
    "uvicorn on uvloop": ("uvloop", "uvicorn"),
    "uvicorn on asyncio": ("asyncio", "uvicorn"),
}
"""What runs, by the name in the tables: a loop and a style of `bench.peer`; None is our own."""


@dataclass(frozen=True, slots=True)
class Aim:
    """How much better one is meant to be than another, at 64 connections."""

    name: str
    base: str
    rate: float
    cpu: float


AIMS = (
    Aim(OURS, "uvloop Protocol", 1.10, 1.15),
    Aim(OURS, "uvloop streams", 1.30, 1.5),
    Aim(OURS, "asyncio streams", 1.65, 2.0),
    Aim("uvicorn on ioxide", "uvicorn on uvloop", 1.25, 1.3),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One server in one round."""

    rate: float
    """Requests a second."""
    cpu_us: float
    """Of the server, a request."""
    p50_us: float
    p99_us: float

    @classmethod
    def of(cls, load: Load, before: Mapping[str, float], after: Mapping[str, float]) -> Sample:
        """What the load and the server's processor time say; raises `Void` without either."""
        cpu = after["cpu_s"] - before["cpu_s"]
        if cpu <= 0 or load.seconds <= 0:
            raise Void("the server's processor time did not move: another one has answered")
        return cls(
            rate=load.requests / load.seconds,
            cpu_us=cpu / load.requests * 1e6,
            p50_us=load.p50_us,
            p99_us=load.p99_us,
        )


Samples = Mapping[str, list[Sample]]


def gains(samples: Samples, name: str, base: str) -> tuple[Spread, Spread]:
    """How many times `base`'s requests a second `name` serves, and the same of processor time."""
    pairs = list(zip(samples[name], samples[base], strict=True))
    return (
        Spread.of([one.rate / other.rate for one, other in pairs]),
        Spread.of([other.cpu_us / one.cpu_us for one, other in pairs]),
    )


def table(samples: Samples) -> str:
    """A row for each server: medians."""
    lines = [
        "| server | req/s | CPU us/request [min .. max] | p50 us | p99 us |",
        "|---|---|---|---|---|",
    ]
    for name, found in samples.items():
        cpu = Spread.of([sample.cpu_us for sample in found])
        rate, p50, p99 = (
            Spread.of([getattr(sample, field) for sample in found]).median
            for field in ("rate", "p50_us", "p99_us")
        )
        lines.append(
            f"| {name} | {rate:.0f} | {cpu.median:.2f} [{cpu.low:.2f} .. {cpu.high:.2f}] "
            f"| {p50:.0f} | {p99:.0f} |"
        )
    return "\n".join(lines)


def aims(samples: Samples) -> str:
    """A row for each aim: what was measured, what was meant, and whether it is reached."""
    lines = [
        "| | over | req/s [min .. max] | aim | CPU [min .. max] | aim | |",
        "|---|---|---|---|---|---|---|",
    ]
    for aim in AIMS:
        rate, cpu = gains(samples, aim.name, aim.base)
        reached = rate.median >= aim.rate and cpu.median >= aim.cpu
        lines.append(
            f"| {aim.name} | {aim.base} | {_times(rate)} | {aim.rate:.2f} | {_times(cpu)} "
            f"| {aim.cpu:.2f} | {'reached' if reached else 'missed'} |"
        )
    return "\n".join(lines)


def _times(spread: Spread) -> str:
    return f"{spread.median:.2f} [{spread.low:.2f} .. {spread.high:.2f}]"


def libraries() -> Path:
    """uvloop and httptools, which only this needs, in a directory of their own."""
    target = BUILD / f"peers-{sysconfig.get_config_var('SOABI')}"
    if not target.exists():
        new = target.with_suffix(".new")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade"]
        done = subprocess.run(
            [*command, "--target", str(new), "--group", "peers"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_USER": "0"},
        )
        if done.returncode:
            raise Void("pip could not install the group peers of pyproject.toml; see above")
        new.rename(target)
    return target


@contextlib.contextmanager
def started(name: str, paths: Sequence[Path]) -> Iterator[Server]:
    """The server of that name, in a process of its own."""
    peer = SERVERS[name]
    if peer is None:
        with running({}) as server:
            yield server
        return
    with running({}, module="bench.peer", arguments=peer, paths=paths) as server:
        if "uvicorn" in peer:
            server.answer = ASGI_ANSWER
        yield server


def _tell(connections: int, number: int) -> None:
    print(f"{connections} at once: round {number} is over", flush=True)


def run(rounds: int, seconds: float, *, write: bool) -> int:
    """Measure, print, and write the page."""
    paths = [libraries()]
    found: dict[int, dict[str, list[Sample]]] = {}
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(started(name, paths)) for name in SERVERS}
        for connections in (CONNECTIONS, 1):
            found[connections] = interleaved(
                servers,
                Sample.of,
                connections=connections,
                rounds=rounds,
                seconds=seconds,
                told=functools.partial(_tell, connections),
            )
    versions = [metadata.version("uvicorn")]
    versions += [
        distribution.version
        for name in ("uvloop", "httptools")
        for distribution in metadata.distributions(name=name, path=[str(path) for path in paths])
    ]
    load = os.getloadavg()[0]
    text = (
        f"{machine()}; uvicorn {versions[0]}, uvloop {versions[1]}, httptools {versions[2]}.\n"
        f"{rounds} rounds of {seconds:g} s a server, server and load generator on one core; load\n"
        f"average at the end {load:.1f}, of which about 1 is the benchmark itself.\n\n"
        f"{aims(found[CONNECTIONS])}\n\n"
        f"{CONNECTIONS} connections:\n\n{table(found[CONNECTIONS])}\n\n"
        f"One connection:\n\n{table(found[1])}"
    )
    page.show(PAGE, "peers", text, write=write)
    return 0
