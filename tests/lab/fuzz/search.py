# SPDX-License-Identifier: MIT
"""Has hypothesis make scenarios, try them, and shrink what does not hold."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, given, settings

from .scenario import Scenario
from .strategy import scenarios
from .trial import Stage

SHRINKING_S = 60.0
"""So long, in seconds, what was found may take to become small."""


@dataclass(slots=True)
class Seen:
    """What a search came across."""

    runs: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """The smallest scenario found of which something does not hold."""

    scenario: Scenario
    wrong: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(
            (
                *(f"  {each}" for each in self.wrong),
                f"reproduce: python -m tests.lab.fuzz '{self.scenario.line()}'",
            )
        )


class _HoleError(AssertionError):
    """What hypothesis shrinks; one class, so that it does not search for several."""


def explore(stage: Stage, *, seed: int, examples: int, until: float, seen: Seen) -> Found | None:
    """Try up to `examples` scenarios until the monotonic clock says `until`; what was found."""
    best: list[Found] = []
    shrink_until = [float("inf")]

    @hypothesis.seed(seed)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=False,
        verbosity=Verbosity.quiet,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(scenarios())
    def search(scenario: Scenario) -> None:
        now = time.monotonic()
        if (now > until and not best) or now > shrink_until[0]:
            return
        seen.runs += 1
        wrong = stage.play(scenario)
        if wrong:
            shrink_until[0] = min(shrink_until[0], now + SHRINKING_S)
            if not best or len(scenario.line()) <= len(best[0].scenario.line()):
                best[:] = [Found(scenario, tuple(wrong))]
            raise _HoleError

    # With two guests, which of them is first is not hypothesis's to say.
    with contextlib.suppress(_HoleError, hypothesis.errors.Flaky):
        search()
    return best[0] if best else None
