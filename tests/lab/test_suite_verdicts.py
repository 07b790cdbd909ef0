# SPDX-License-Identifier: MIT
"""A run's exit code follows from its verdicts, each of which has one weight."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.facts import verdicts
from lab.facts.verdicts import (
    ExitCode,
    Tally,
    Verdict,
    Weight,
    conclude,
    counted,
    printable,
    weight,
)

pytestmark = pytest.mark.lab

VERDICTS = st.dictionaries(st.text(min_size=1), st.sampled_from(Verdict))
SENTENCES = st.lists(st.text(min_size=1), max_size=2)
TALLIES = st.builds(
    Tally,
    verdicts=VERDICTS,
    problems=SENTENCES,
    faults=SENTENCES,
    usage=st.sampled_from(["", "what?"]),
    interrupted=st.booleans(),
)


@given(TALLIES)
def test_green_means_proved(tally: Tally) -> None:
    """0 only if something passed, everything else is harmless, and nothing is held against it."""
    code = conclude(tally).code
    kinds = set(tally.verdicts.values())

    bad = {Weight.DISPROVES, Weight.UNPROVES} & set(map(weight, kinds))
    good = Verdict.PASSED in kinds and not bad
    clean = not (tally.problems or tally.faults or tally.usage or tally.interrupted)
    assert (code is ExitCode.PROVED) == (good and clean)


@given(TALLIES)
def test_disproved_wins_over_not_proved(tally: Tally) -> None:
    """Whatever kept the rest from being proved, a failure makes the code 1."""
    code = conclude(tally).code
    disproved = Weight.DISPROVES in map(weight, tally.verdicts.values()) or bool(tally.faults)

    if tally.interrupted:
        assert code is ExitCode.INTERRUPTED
    elif tally.usage:
        assert code is ExitCode.USAGE
    elif disproved:
        assert code is ExitCode.DISPROVED
    else:
        assert code in (ExitCode.PROVED, ExitCode.NOT_PROVED)


@given(TALLIES)
def test_conclusion_says_why(tally: Tally) -> None:
    """The last line is one that names the code, the word and a reason."""
    text = str(conclude(tally))

    assert text.startswith(f"lab: exit {int(conclude(tally).code)} (")
    assert not text.endswith(": ")


WEIGHTS = {
    Verdict.PASSED: Weight.PROVES,
    Verdict.SKIPPED: Weight.HARMLESS,
    Verdict.XFAILED: Weight.HARMLESS,
    Verdict.FAILED: Weight.DISPROVES,
    Verdict.SPLAT: Weight.DISPROVES,
    Verdict.SURPRISE: Weight.DISPROVES,
    Verdict.LOST: Weight.UNPROVES,
    Verdict.NEVER_RAN: Weight.UNPROVES,
}
CODES = {
    Weight.PROVES: ExitCode.PROVED,
    Weight.HARMLESS: ExitCode.PROVED,
    Weight.DISPROVES: ExitCode.DISPROVED,
    Weight.UNPROVES: ExitCode.NOT_PROVED,
}


@pytest.mark.parametrize("verdict", Verdict)
def test_each_verdict_weighs_what_the_readme_says(verdict: Verdict) -> None:
    """Beside a test that passed, each verdict alone decides the run's exit code."""
    assert WEIGHTS[verdict] is weight(verdict)
    beside = {"a": Verdict.PASSED, "b": verdict}
    assert CODES[WEIGHTS[verdict]] is conclude(Tally(beside)).code


@pytest.mark.parametrize("unknown", ["amazing", "", "PASSED"])
def test_unknown_verdict_proves_nothing(unknown: Any) -> None:
    """What is in no class of verdicts keeps the run from having proved anything, and is named."""
    conclusion = conclude(Tally({"a": Verdict.PASSED, "b": unknown}))

    assert ExitCode.NOT_PROVED is conclusion.code
    assert "1 passed, 1" in conclusion.why


def test_type_checker_knows_that_each_verdict_has_a_weight() -> None:
    """No case of the match takes what is left: a new verdict is an error of types."""
    (function,) = (
        item
        for item in ast.parse(Path(verdicts.__file__).read_text()).body
        if isinstance(item, ast.FunctionDef) and item.name == "weight"
    )
    (match,) = (item for item in function.body if isinstance(item, ast.Match))
    named = [
        node.attr
        for case in match.cases
        for node in ast.walk(case.pattern)
        if isinstance(node, ast.Attribute)
    ]
    assert sorted(verdict.name for verdict in Verdict) == sorted(named)
    (last,) = match.cases[-1].body
    assert "assert_never(known)" == ast.unparse(last)


def test_counts_name_only_what_occurs() -> None:
    """Verdicts are counted in a fixed order."""
    assert counted([Verdict.LOST, Verdict.PASSED, Verdict.LOST]) == "1 passed, 2 lost"
    assert counted([]) == "no verdicts"


def test_every_text_can_be_printed() -> None:
    """What an encoding has no bytes for is shown as an escape; what it has is left alone."""
    assert printable("\ud800 ü Ω", "utf-8") == "\\ud800 ü Ω"
    assert printable("\ud800 ü Ω", "latin-1") == "\\ud800 ü \\u03a9"
    assert printable("ü", None) == "ü"
