# SPDX-License-Identifier: MIT
"""What has changed since the run before of the same selection."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from lab.facts.verdicts import Conclusion, ExitCode
from lab.report import content, markdown, previous
from tests.lab.suite_support import REPOSITORY, Little, Ran

pytestmark = pytest.mark.lab

SCHEMA = json.loads((REPOSITORY / "docs/results.schema.json").read_text())
THEN = """
def test_breaks(): pass
def test_heals(): assert False
def test_goes(): pass
@pytest.mark.needs("NAPI")
def test_wakes(): pass
def test_stays(): assert False
"""
NOW = """
def test_breaks(): assert False, "<broken>"
def test_heals(): pass
def test_comes(): pass
def test_wakes(): pass
def test_stays(): assert False
"""


def whole_of(ran: Ran) -> dict[str, Any]:
    """results.json, which fits the schema."""
    whole = json.loads((ran.files / "results.json").read_text())
    jsonschema.validate(whole, SCHEMA)
    return dict(whole)


def kinds(changes: Mapping[str, Any]) -> dict[str, list[str]]:
    """The names of the changed tests by kind."""
    names = ("newly_failing", "mended", "changed", "new", "vanished")
    found = {kind: [one["test"].rpartition("::")[2] for one in changes[kind]] for kind in names}
    return {kind: tests for kind, tests in found.items() if tests}


def test_what_changed_comes_first(little: Little) -> None:
    """In the report, in the summary and in results.json; what stays as bad as it was is no
    change."""
    little.tests(THEN)
    first = little.lab("--lab-guests=1")
    assert whole_of(first)["previous"] is None
    directory = first.files.resolve().name
    little.tests(NOW)

    ran = little.lab("--lab-guests=1")

    found = whole_of(ran)["previous"]
    assert directory == found["directory"]
    assert kinds(found) == {
        "newly_failing": ["test_breaks"],
        "mended": ["test_heals"],
        "changed": ["test_wakes"],
        "new": ["test_comes"],
        "vanished": ["test_goes"],
    }
    told = [
        "newly failing: 6.12.107 tests/test_it.py::test_breaks: passed, now failed: "
        "AssertionError: <broken>",
        "mended: 6.12.107 tests/test_it.py::test_heals: failed, now passed",
        "changed: 6.12.107 tests/test_it.py::test_wakes: skipped, now passed",
        "new: 6.12.107 tests/test_it.py::test_comes: passed",
        "vanished: 6.12.107 tests/test_it.py::test_goes: passed",
    ]
    lines = ran.output.splitlines()
    (begun,) = [n for n, line in enumerate(lines) if f" changed since {directory} -" in line]
    assert [line.partition("\n")[0] for line in lines[begun + 1 : begun + 6]] == told
    assert " kernel 6.12.107 -" in lines[begun + 6]
    summary = (ran.files / "summary.md").read_text().splitlines()
    assert f"**Changed since {directory}**" == summary[0]
    assert "AssertionError: &#60;broken&#62;" in summary[2]


def test_same_run_again_changes_nothing(little: Little) -> None:
    """However often, in how many guests and in which order it is run."""
    little.tests(THEN)
    directory = little.lab("--lab-guests=1").files.resolve().name

    ran = little.lab("--lab-guests=2", "--repeat=2", "--maxfail=9")

    found = whole_of(ran)["previous"]
    assert {} == kinds(found)
    assert [] == found["kernels"]
    assert f"nothing has changed since {directory}" in ran.output


SELECTIONS = [
    [],
    ["-k", "test_it"],
    ["tests/test_it.py"],
    ["tests/test_it.py::test_it"],
    ["-m", "not slow"],
    ["--lab-as=6.1"],
    ["--deselect", "tests/test_it.py::test_it"],
    ["--ignore", "tests/other.py"],
    ["--ignore-glob", "tests/o*"],
    ["--lf"],
    ["--lab-slow"],
]
SAME = [
    [],
    ["-x"],
    ["--ff"],
    ["--lab-guests=2"],
    ["--lab-repeat=3"],
    ["-v", "--tb=short"],
]
KEYS = """
import json, sys
from _pytest.config import _prepareconfig
from lab.suite import selection

def key(words):
    config = _prepareconfig(["--lab-kernel=6.12", *words])
    return selection.key(config, kernels=["6.12"])

print(json.dumps([key(words) for words in json.loads(sys.argv[1])]))
"""


def keys(little: Little, selections: list[list[str]]) -> list[str]:
    """The keys of these command lines."""
    ran = little.run("keys", json.dumps(selections))
    assert ran.code == 0, ran.output
    return list(json.loads(ran.output))


def test_which_selections_are_the_same(little: Little) -> None:
    """What decides which tests run makes another selection; how they run does not."""
    little.tests("def test_it(): pass\n")
    little.write("keys.py", KEYS)
    assert len(SELECTIONS) == len(set(keys(little, SELECTIONS)))
    assert 1 == len(set(keys(little, SAME)))
    inside = [["tests/test_it.py"], ["./tests/../tests/test_it.py"]]
    assert 1 == len(set(keys(little, inside)))


def test_another_selection_is_not_compared(little: Little) -> None:
    little.tests("def test_it(): pass\n")
    little.lab()
    assert whole_of(little.lab("-k", "it", kernel="6.12 6.1"))["previous"] is None


def test_kernel_that_came_or_left_is_told_as_one(little: Little) -> None:
    """Its tests are not told one by one, and those of the other kernel are compared."""
    little.tests("def test_it(): pass\n")
    first = little.lab(kernel="6.12 6.10", ALLOW_MISSING="6.10")
    assert first.code == 0, first.output
    little.tests("def test_it(): assert False\n")

    ran = little.lab(kernel="6.12 6.10", ALLOW_MISSING="6.10")

    found = whole_of(ran)["previous"]
    assert kinds(found) == {"newly_failing": ["test_it"]}
    assert ["6.12"] == [one["asked"] for one in found["kernels"]]
    assert "6.12: exit 0, now 1" in ran.output.splitlines()


def write(
    directory: Path,
    *,
    selection: str,
    code: ExitCode = ExitCode.PROVED,
    verdict: str = "passed",
) -> None:
    """The results of a run of one test."""
    conclusion = Conclusion(code, "whatever")
    leg = content.leg_not_begun("6.12", conclusion)
    leg["verdicts"] = {"a.py::test_a": {"verdict": verdict, "seconds": 1.0, "why": ""}}
    content.write(directory, content.content([leg], conclusion, 1.0, selection=selection))


def cut(file: Path) -> None:
    file.write_text(file.read_text()[:-100])


def of_tomorrow(file: Path) -> None:
    file.write_text(file.read_text().replace('"version": 1', '"version": 99', 1))


def nonsense(file: Path) -> None:
    file.write_text('{"version": 1, "selection": "mine", "legs": []}')


def binary(file: Path) -> None:
    file.write_bytes(b"\x00\xff\xfe")


def of_a_strange_verdict(file: Path) -> None:
    file.write_text(file.read_text().replace('"verdict": "passed"', '"verdict": "fine"', 1))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (cut, "it is broken at line "),
        (of_tomorrow, "it is of version 99, and this lab writes 1"),
        (nonsense, "it has no 'exit'"),
        (binary, "'utf-8' codec can't decode"),
        (of_a_strange_verdict, "'fine' is not a valid Verdict"),
    ],
)
def test_file_that_cannot_be_used(tmp_path: Path, spoil: Callable[[Path], None], why: str) -> None:
    """It is named, and the one before that is taken; the third is not asked any more."""
    for name in ("1", "2", "3", "4", "own"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, selection="other" if name == "4" else "mine")
    spoil(tmp_path / "3/results.json")
    (tmp_path / "1/results.json").write_text("{")

    place, whole, notes = previous.find(tmp_path, tmp_path / "own", "mine")

    assert (tmp_path / "2", "mine") == (place, whole["selection"])
    (note,) = notes
    assert note.startswith(f"{tmp_path / '3/results.json'} is not compared with this run: ")
    assert why in note


def test_broken_file_leaves_the_run_as_it_is(little: Little) -> None:
    little.tests("def test_it(): pass\n")
    broken = little.lab().files.resolve() / "results.json"
    cut(broken)

    ran = little.lab()

    assert ran.code == 0, ran.output
    whole = whole_of(ran)
    assert whole["previous"] is None
    (note,) = whole["notes"]
    assert 1 == ran.output.count(f"note: {broken} is not compared with this run: it is broken at")
    assert f"note: {markdown.plain(note)}" in (ran.files / "summary.md").read_text()


def test_run_that_was_over_before_its_tests_is_passed_by(tmp_path: Path) -> None:
    """Neither an interrupted run nor one without a guest hides what was true before it."""
    for name in ("1", "2", "3"):
        (tmp_path / name).mkdir()
    write(tmp_path / "1", selection="mine")
    write(tmp_path / "2", selection="mine", code=ExitCode.INTERRUPTED)
    write(tmp_path / "3", selection="mine", verdict="never ran")
    assert (tmp_path / "1", []) == previous.find(tmp_path, tmp_path / "4", "mine")[::2]
    assert (None, {}, []) == previous.find(tmp_path / "none", tmp_path / "none/4", "mine")
