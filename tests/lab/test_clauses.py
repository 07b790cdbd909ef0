# SPDX-License-Identifier: MIT
"""The table of guarantees names tests and mutants that exist, and leaves none out."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.mutants.table import HERE, load

pytestmark = pytest.mark.lab

ROOT = HERE.parents[1]
TABLES = tomllib.loads((ROOT / "tests/clauses.toml").read_text())
CLAUSES: list[dict[str, Any]] = TABLES["clause"]
REDS: list[dict[str, Any]] = TABLES["red"]
ISSUES = range(92, 105)
IDS = [f"{clause['issue']}-{number}" for number, clause in enumerate(CLAUSES)]


def _defines(node: str) -> bool:
    """Whether the file of a node id has the test that it names; parameters are not looked at."""
    path, _, name = node.partition("[")[0].partition("::")
    file = ROOT / path
    if not file.is_file():
        return False
    return any(
        isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and item.name == name
        for item in ast.walk(ast.parse(file.read_text()))
    )


@pytest.mark.parametrize("clause", CLAUSES, ids=IDS)
def test_clause_has_a_test_and_a_mutant(clause: dict[str, Any]) -> None:
    """A guarantee is held by tests and mutants that exist; each mutant is caught by such a test."""
    assert {"issue", "says", "tests", "mutants"} == set(clause)
    assert clause["issue"] in ISSUES
    assert clause["tests"]
    assert clause["mutants"]
    assert [] == [node for node in clause["tests"] if not _defines(node)]

    known = {mutant.id: mutant for mutant in load().mutants}
    assert [] == [name for name in clause["mutants"] if name not in known]
    for name in clause["mutants"]:
        caught_by = {node.partition("[")[0] for node in known[name].red}
        assert caught_by & set(clause["tests"]), f"{name} is caught by {sorted(caught_by)}"


def test_every_issue_has_a_clause() -> None:
    """None of #92 to #104 is left out."""
    assert set(ISSUES) == {clause["issue"] for clause in CLAUSES}


def test_the_bug_of_every_issue_is_a_mutant() -> None:
    """What each of #92 to #103 was can be put back, as one or more mutants of that issue."""
    known = {mutant.id: mutant.breaks for mutant in load().mutants}
    assert set(range(92, 104)) == {red["issue"] for red in REDS}
    for red in REDS:
        assert {"issue", "was", "mutants"} == set(red)
        assert red["mutants"]
        allowed = {f"#{red['issue']}", "#97"}  # the cap is #92's and #97's
        assert [] == [name for name in red["mutants"] if known.get(name) not in allowed]


def test_every_mutant_of_an_issue_is_in_the_table() -> None:
    """A mutant that breaks one of the issues belongs to one of the issue's guarantees."""
    named = {name for clause in CLAUSES for name in clause["mutants"]}
    issues = {f"#{number}" for number in ISSUES}
    assert [] == [m.id for m in load().mutants if m.breaks in issues and m.id not in named]


def test_tests_that_mutants_name_exist() -> None:
    """Each test and control that a mutant names is in its file."""
    assert [] == [node for node in load().tests() if not _defines(node)]


def test_a_name_that_does_not_exist_is_noticed() -> None:
    """The check itself tells a test that is there from one that is not."""
    here = str(Path(__file__).relative_to(ROOT))
    assert _defines(f"{here}::test_every_issue_has_a_clause")
    assert not _defines(f"{here}::test_nothing_of_the_kind")
    assert not _defines("tests/nowhere.py::test_every_issue_has_a_clause")
