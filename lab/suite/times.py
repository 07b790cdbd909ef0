# SPDX-License-Identifier: MIT
"""How long each test took the last time, by kernel: what decides which is begun first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import pytest

from ..facts.records import Record
from ..facts.verdicts import Verdict

KEY = "lab/times"
"""Where pytest's cache has the seconds of each test, by kernel and id."""


def known(config: pytest.Config) -> dict[str, dict[str, float]]:
    """The seconds of each test by kernel and id; empty without a cache."""
    # With -p no:cacheprovider there is no such attribute.
    cache = getattr(config, "cache", None)
    found = cache.get(KEY, {}) if cache is not None else {}
    if not isinstance(found, dict):
        return {}
    return {
        str(cell): {str(name): float(s) for name, s in times.items() if _is_time(s)}
        for cell, times in found.items()
        if isinstance(times, dict)
    }


def remember(
    config: pytest.Config, records: Mapping[str, Mapping[str, Record]], *, whole: bool
) -> None:
    """Keep what the tests of these kernels took. Behind a `whole` run those that are no more are
    forgotten."""
    if (cache := getattr(config, "cache", None)) is None or not records:
        return
    before = known(config)
    for cell, tests in records.items():
        took = {
            name: round(record.seconds / max(1, len(record.runs)), 3)
            for name, record in tests.items()
            if record.verdict is not Verdict.NEVER_RAN
        }
        if took:
            before[cell] = took if whole else {**before.get(cell, {}), **took}
    cache.set(KEY, before)


class Took:
    """How long the tests of one kernel took the last time, in seconds."""

    def __init__(self, seconds: Mapping[str, float], usual: float) -> None:
        """A test that is not among `seconds` counts as a `usual` one."""
        self._seconds, self._usual = seconds, usual

    def one(self, name: str) -> float:
        """This test."""
        return self._seconds.get(name, self._usual)

    def all(self, names: Iterable[str]) -> float:
        """All of these, one after the other."""
        return sum(map(self.one, names))


def took(config: pytest.Config, cells: Iterable[str]) -> Mapping[str, Took]:
    """What is known of these kernels. A test that is new counts as a usual one of its kernel, and a
    kernel that is new as the others; empty where nothing is known of any."""
    before = known(config)
    every = [seconds for times in before.values() for seconds in times.values()]
    if not every:
        return {}
    usual = sum(every) / len(every)

    def of(times: Mapping[str, float]) -> Took:
        return Took(times, sum(times.values()) / len(times) if times else usual)

    return {cell: of(before.get(cell, {})) for cell in cells}


def estimated(names: Iterable[str], seconds: Mapping[str, float]) -> float:
    """How long these tests take by the `seconds` that are known, where a test that is not among
    them counts as a usual one; infinite if none is known."""
    if not seconds:
        return math.inf
    usual = sum(seconds.values()) / len(seconds)
    return sum(seconds.get(name, usual) for name in names)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0
