# SPDX-License-Identifier: MIT
"""Has hypothesis make scenarios, run them on both loops, and shrink what differs."""

from __future__ import annotations

import time
from dataclasses import dataclass

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.differential.known import unknown
from tests.differential.pair import Difference, Pair
from tests.differential.scenario import Scenario
from tests.differential.strategy import scenarios

SHRINKING = 60.0
"""Seconds in which a scenario that differs has to become small."""


@dataclass(frozen=True, slots=True)
class Found:
    """The smallest scenario that was found to differ, and how."""

    scenario: Scenario
    differences: tuple[Difference, ...]

    def __str__(self) -> str:
        return "\n".join(
            (
                "the loops differ:",
                *(f"  {each}" for each in self.differences),
                f"reproduce: python -m tests.differential '{self.scenario.line()}'",
            )
        )


class _DifferentError(AssertionError):
    """What hypothesis shrinks; one class, so that it does not search for several."""


def _size(scenario: Scenario) -> int:
    return len(scenario.line())


def explore(both: Pair, *, seed: int | None, examples: int, until: float) -> Found | None:
    """Run up to `examples` scenarios until the clock says `until`; what was found, if anything.

    Without a seed they are the same ones each time.
    """
    found: list[Found] = []
    patience = [until]

    @settings(
        max_examples=examples,
        derandomize=seed is None,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(scenarios())
    def differ(scenario: Scenario) -> None:
        if time.monotonic() > patience[0]:
            return
        differences = unknown(both, scenario)
        if differences:
            if not found:
                patience[0] = time.monotonic() + SHRINKING
            found.append(Found(scenario, tuple(differences)))
            raise _DifferentError

    run = differ if seed is None else hypothesis.seed(seed)(differ)
    try:
        run()
    except BaseException as error:
        # Out of time while it shrinks, a failure does not come again: hypothesis calls that flaky.
        if not found or isinstance(error, KeyboardInterrupt):
            raise
    return min(found, key=lambda each: _size(each.scenario)) if found else None
