# SPDX-License-Identifier: MIT
"""What is written down about one test of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .evidence import Evidence
from .verdicts import Verdict, counted, worst


@dataclass(frozen=True, slots=True)
class Record:
    """One test's verdict, the seconds it took on the host's clock, and a line about why."""

    verdict: Verdict
    seconds: float = 0.0
    why: str = ""
    subtests: Sequence[Mapping[str, str]] = ()
    """Of a program that prints TAP: name, state and why of each, those that failed first."""
    evidence: Evidence | None = None
    """None of a test that never ran, or had no guest."""
    runs: Sequence[Record] = ()
    """Each run of a test that was run several times, in order; empty if it was run once."""


def of_runs(runs: Sequence[Record]) -> Record:
    """The record of a test that was run so often: the verdict and reason of the worst run, and the
    seconds of all."""
    verdict = worst(run.verdict for run in runs)
    one = next(run for run in runs if run.verdict is verdict)
    why = one.why
    if any(run.verdict is not verdict for run in runs):
        often = counted(run.verdict for run in runs)
        why = f"{often}: {why}" if why else often
    return replace(one, seconds=sum(run.seconds for run in runs), why=why, runs=tuple(runs))
