# SPDX-License-Identifier: MIT
"""What a run says about a mutant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.mutants.table import Mutant
from tests.mutants.workshop import Outcome, Run


class Kind(StrEnum):
    """How a mutant fared; only RED is good, and ABSENT no harm."""

    RED = "red"
    SURVIVED = "survived"
    """A test that is named for it stayed green."""
    OTHER_REASON = "other reason"
    """A test failed, crashed, hung or did not run, but not by the assertion meant for it."""
    BROKE_CONTROL = "broke a control"
    STALE = "stale"
    NO_BUILD = "does not build"
    NOT_GREEN = "red without it"
    """A named test or control fails in the tree as it is."""
    ABSENT = "absent here"
    """The kernel lacks what each of the tests named for it needs, or lets the bug not show; neither
    good nor bad."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One mutant, judged."""

    mutant: Mutant
    kind: Kind
    reason: str = ""
    """Empty for RED."""
    seen: tuple[tuple[str, str], ...] = ()
    """Node id and message of each named test."""
    seconds: float = 0.0
    detail: str = ""

    @property
    def good(self) -> bool:
        return self.kind in (Kind.RED, Kind.ABSENT)


def _state(outcome: Outcome, run: Run, text: str = "") -> str:
    if outcome.messages:
        # The one that was meant, if it is there: a stop that hangs afterwards ends in another one.
        return next((said for said in outcome.messages if text and text in said), outcome.message)
    if not outcome.started:
        return "did not run"
    if outcome.ended:
        return "passed"
    return (
        "did not end in time"
        if run.killed
        else f"ended the process with status {run.status} in the middle"
    )


def judge(mutant: Mutant, controls: Sequence[str], run: Run) -> Verdict:
    """Red only if every control passed and every named test failed by its own assertion."""
    seen = tuple((node, _state(run.of(node), run, text)) for node, text in mutant.red.items())

    def verdict(kind: Kind, reason: str = "", detail: str = "") -> Verdict:
        return Verdict(mutant, kind, reason, seen, run.seconds, detail)

    for node in controls:
        outcome = run.of(node)
        if not outcome.passed:
            reason = f"{node}: {_state(outcome, run)}"
            return verdict(Kind.BROKE_CONTROL, reason, outcome.text or run.output)
    for (node, text), state in zip(mutant.red.items(), (state for _, state in seen), strict=True):
        outcome = run.of(node)
        if outcome.passed:
            return verdict(Kind.SURVIVED, f"{node} stays green")
        if mutant.hangs and run.killed and outcome.started and not outcome.ended:
            continue
        if not outcome.failed or text not in outcome.message:
            reason = f"{node}: {state!r} instead of {text!r}"
            return verdict(Kind.OTHER_REASON, reason, outcome.text or run.output)
    return verdict(Kind.RED)


def proved(verdicts: Sequence[Verdict]) -> bool:
    """Whether no mutant is bad, and at least one is red: what tried nothing proved nothing."""
    return all(v.good for v in verdicts) and any(v.kind is Kind.RED for v in verdicts)
