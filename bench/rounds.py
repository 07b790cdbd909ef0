# SPDX-License-Identifier: MIT
"""Paired, interleaved rounds: each round measures every server, so what drifts drifts for all."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.counts import check_clean
from bench.errors import Void
from bench.process import CONNECTIONS, Load, Server

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One server in one round."""

    rate: float
    """Requests a second."""
    cpu_us: float
    """Of the server, a request."""
    enters: float
    completions: float
    """For each enter."""
    wake_writes: float
    switches: float
    """Context switches of the server's threads, a request."""
    p50_us: float
    p99_us: float

    @classmethod
    def of(cls, load: Load, before: Mapping[str, float], after: Mapping[str, float]) -> Sample:
        """What the load and the server's counts say; raises `Void` when they cannot be used."""
        check_clean(before, after)
        grown = {name: after[name] - before[name] for name in after}
        if grown["enters"] <= 0 or grown["cpu_s"] <= 0 or load.seconds <= 0:
            raise Void("the server's counts did not move")
        if grown["bytes_sent"] <= 0 or grown["sends"] > 2 * load.requests:
            raise Void("the server's sends do not fit the load")
        each = load.requests
        return cls(
            rate=each / load.seconds,
            cpu_us=grown["cpu_s"] / each * 1e6,
            enters=grown["enters"] / each,
            completions=grown["cqes"] / grown["enters"],
            wake_writes=grown["wake_writes"] / each,
            switches=grown["switches"] / each,
            p50_us=load.p50_us,
            p99_us=load.p99_us,
        )


Samples = Mapping[str, Sequence[Sample]]


def interleaved(
    servers: Mapping[str, Server],
    sample: Callable[[Load, Mapping[str, float], Mapping[str, float]], T],
    *,
    rounds: int,
    seconds: float,
    connections: int = CONNECTIONS,
    apart: bool = False,
    told: Callable[[int], object] = lambda _: None,
) -> dict[str, list[T]]:
    """Measure every server in every round, in an order drawn anew for each."""
    drawn = random.Random(104)
    found: dict[str, list[T]] = {name: [] for name in servers}
    for name, server in servers.items():
        try:
            server.load(seconds=0.3, connections=connections, apart=apart)  # to warm up
        except Void as error:
            raise Void(f"{name}: {error}") from None
    for number in range(rounds):
        for name in drawn.sample(sorted(servers), len(servers)):
            server = servers[name]
            before = server.settled()
            load = server.load(seconds=seconds, connections=connections, apart=apart)
            found[name].append(sample(load, before, server.settled()))
        told(number + 1)
    return found


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with its least and most."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) < 3:
            raise Void(f"{len(values)} rounds are too few: a median needs three")
        return cls(statistics.median(values), min(values), max(values))


def ratios(samples: Samples, name: str, base: str) -> Spread:
    """Requests a second of `name`, as shares of what `base` had in the same round."""
    pairs = zip(samples[name], samples[base], strict=True)
    return Spread.of([one.rate / other.rate for one, other in pairs])
