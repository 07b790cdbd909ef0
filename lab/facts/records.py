# SPDX-License-Identifier: MIT
"""What is written down about one test of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .evidence import Evidence
from .verdicts import Verdict


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
