# SPDX-License-Identifier: MIT
"""`lab sweep`: programs by kernels, in guests that are none."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import lab.kernels
from lab.cli import main
from lab.errata import compared, programs_sweep
from lab.errata.compared import Cell, Column
from lab.errata.programs_sweep import Asked, Sweep
from lab.errors import KernelUnavailable, UsageError
from lab.facts.verdicts import ExitCode, Verdict
from lab.kernels import Kernel
from lab.project import Program, Project

pytestmark = pytest.mark.lab

PASSED, FAILED, SKIPPED = Verdict.PASSED, Verdict.FAILED, Verdict.SKIPPED
LOST, NEVER = Verdict.LOST, Verdict.NEVER_RAN


def _kernel(upstream: str, revision: str = "1") -> Kernel:
    return Kernel(
        series=".".join(upstream.split(".")[:2]),
        upstream=upstream,
        package=f"{upstream}-{revision}",
        release=f"{upstream}+fake{revision}",
        source="fake",
        locked=False,
        verified_by="nobody",
    )


OLD, NEW = _kernel("6.1.176"), _kernel("6.12.107")
ASKED = [Asked("6.1", OLD), Asked("6.12", NEW)]


def _column(kernel: Kernel, **cells: Cell) -> Column:
    return Column(kernel, kernel.upstream, cells)


COLUMNS = [
    _column(
        OLD,
        a=Cell(PASSED),
        b=Cell(FAILED, "it ended with status 1: no"),
        c=Cell(SKIPPED, "exit status 77"),
        d=Cell(PASSED),
        e=Cell(FAILED, "it ended with status 2", runs=(PASSED, FAILED, PASSED)),
    ),
    _column(
        NEW,
        a=Cell(PASSED),
        b=Cell(PASSED),
        c=Cell(PASSED),
        d=Cell(LOST, "the guest died"),
        e=Cell(PASSED, runs=(PASSED, PASSED, PASSED)),
    ),
]


def test_only_what_changes_is_told() -> None:
    """Programs that fail somewhere come first, with what they said; a lost one is no change, and
    one whose runs do not agree tells of none."""
    assert [
        "fails on some of the kernels",
        "program  6.1.176   6.12.107",
        "b        failed    passed",
        "e        unsteady  passed",
        "",
        "does not fail, and is skipped on some",
        "program  6.1.176  6.12.107",
        "c        skipped  passed",
        "",
        "what was said",
        "b: 6.1.176: failed: it ended with status 1: no",
        "e: 6.1.176: unsteady (2 passed, 1 failed): it ended with status 2",
    ] == compared.told(COLUMNS)
    whole = compared.told(COLUMNS, every=True)
    assert "a        passed   passed" in whole
    assert "d        passed   lost" in whole


def test_the_same_is_there_for_programs() -> None:
    whole = compared.to_object(COLUMNS, "build/tests")
    assert (["b", "c"], ["e"]) == (whole["changes"], whole["unsteady"])
    assert ["6.1.176", "6.12.107"] == [kernel["name"] for kernel in whole["kernels"]]
    assert whole["verdicts"]["b"]["6.1.176"] == {
        "verdict": "failed",
        "why": "it ended with status 1: no",
        "seconds": 0.0,
        "runs": [],
    }
    assert json.loads(json.dumps(whole)) == whole


def test_two_packages_of_one_version_are_told_apart() -> None:
    columns = [_column(_kernel("6.1.5", revision)) for revision in "12"]
    assert ["6.1.5-1", "6.1.5-2", "6.12.107"] == compared.heads([*columns, COLUMNS[1]])


def _leg(package: str = "6.12.107-1", **verdicts: str) -> dict[str, Any]:
    found = {
        f"programs/{name}": {"verdict": verdict, "why": "", "seconds": 1.0}
        for name, verdict in verdicts.items()
    }
    kernel = {"package": package}
    return {"seconds": 3.0, "problems": [], "faults": [], "verdicts": found, "kernel": kernel}


def test_column_of_a_run() -> None:
    """A program of which a run says nothing never ran; nothing counts of another kernel."""
    column = compared.column_of(_leg(a="passed"), NEW, "6.12", "programs", ["a", "b"])
    assert [PASSED, NEVER] == [column.cells[name].verdict for name in "ab"]
    assert ["b: never ran: it was not in the run"] == column.problems
    other = compared.column_of(_leg("6.12.108-1", a="passed"), NEW, "6.12", "programs", ["a"])
    assert NEVER is other.cells["a"].verdict
    assert "6.12.108-1 was booted instead" == other.problems[0]
    assert not column.whole
    assert compared.column_of(_leg(a="failed"), NEW, "6.12", "programs", ["a"]).whole


@pytest.mark.parametrize(
    ("change", "missing", "code", "why"),
    [
        ({}, [], ExitCode.PROVED, "1 of 1 programs change between 2 kernels"),
        ({"problems": ["a: lost: x"]}, [], ExitCode.NOT_PROVED, "6.12.107: a: lost: x ("),
        ({"faults": ["it boots badly"]}, [], ExitCode.DISPROVED, "6.12.107: it boots badly ("),
        ({}, ["6.6 cannot be had"], ExitCode.NOT_PROVED, "6.6 cannot be had (1 of 1"),
        (
            {"faults": ["it boots badly"], "problems": ["x"]},
            ["6.6 cannot be had"],
            ExitCode.DISPROVED,
            "6.12.107: it boots badly (1",
        ),
    ],
    ids=["whole", "lost", "complained", "missing", "all"],
)
def test_exit_code(
    change: dict[str, list[str]], missing: list[str], code: ExitCode, why: str
) -> None:
    """A change is a finding; what has no verdict is never green."""
    old, new = _column(OLD, a=Cell(FAILED)), _column(NEW, a=Cell(PASSED))
    for name, value in change.items():
        setattr(new, name, value)
    conclusion = programs_sweep.concluded([old, new], missing)
    assert code is conclusion.code
    assert conclusion.why.startswith(why)


def test_nothing_that_passes_proves_nothing() -> None:
    columns = [_column(OLD, a=Cell(SKIPPED)), _column(NEW, a=Cell(FAILED))]
    conclusion = programs_sweep.concluded(columns, [])
    assert (ExitCode.NOT_PROVED, "nothing passed on any of 2 kernels") == (
        conclusion.code,
        conclusion.why,
    )


def test_what_is_known_of_a_kernel(tmp_path: Path) -> None:
    """A run that has a verdict of each program, and none that is broken or of other programs."""
    sweep = Sweep(tmp_path / "tree", tmp_path, ["a"])
    place = tmp_path / "latest/results.json"
    assert sweep._known(tmp_path, ASKED[1]) is None
    place.parent.mkdir()
    for text, known in (
        (json.dumps({"legs": {"6.12": _leg(a="failed")}}), True),
        (json.dumps({"legs": {"6.12": _leg(a="lost")}}), False),
        (json.dumps({"legs": {"6.12": _leg(b="passed")}}), False),
        (json.dumps({"legs": {"6.12": _leg("6.12.1-1", a="passed")}}), False),
        ('{"legs": {', False),
        ("{}", False),
    ):
        place.write_text(text)
        assert known is (sweep._known(tmp_path, ASKED[1]) is not None), text


# -- in guests that are none -----------------------------------------------------------------------


def _programs(directory: Path, **texts: str) -> Path:
    directory.mkdir()
    for name, text in texts.items():
        (directory / name).write_text(f"#!{sys.executable} -IS\nimport os, sys, time\n{text}\n")
        (directory / name).chmod(0o755)
    return directory


def _sweep(tmp_path: Path, directory: Path, fresh: bool = False) -> Sweep:
    tree = tmp_path / "results/tree"
    program = Program("programs", "programs", timeout_s=20)
    names = programs_sweep.names_in(directory, directory)
    programs_sweep.lay_out(tree, directory, program, Project(tmp_path), ["6.1", "6.12"])
    words = ("-p", "tests.lab.hostile.plugin", "--lab-guests=1")
    return Sweep(tree, tmp_path / "results", names, words, fresh)


def test_programs_run_on_each_kernel_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what lies beside them; a second sweep takes what is known, a kernel whose program was
    lost runs again, and --fresh runs all."""
    directory = _programs(
        tmp_path / "programs",
        same="pass",
        newer="sys.exit('no such thing' if os.environ['LAB_FAKE_UPSTREAM'] < '6.12' else 0)",
        data="open('more/data.txt').read()",
    )
    (directory / "more").mkdir()
    (directory / "more/data.txt").write_text("x")
    (directory / "README").write_text("no program")
    monkeypatch.setenv("LAB_FAKE", "{}")
    said: list[str] = []

    columns = _sweep(tmp_path, directory).run(ASKED, said.append)

    assert [] == [problem for column in columns for problem in column.problems]
    rows = {row.program: row.words for row in compared.rows_of(columns)}
    assert {
        "data": ("passed", "passed"),
        "newer": ("failed", "passed"),
        "same": ("passed", "passed"),
    } == rows
    assert ["[1/2] 6.1.176 (6.1.176-1): ", "[2/2] 6.12.107 (6.12.107-1): "] == [
        line[: line.index("): ") + 3] for line in said
    ]
    assert "it ended with status 1: no such thing" == columns[0].cells["newer"].why

    # As a sweep leaves it that was stopped in its second kernel, and one whose guest was lost.
    (tmp_path / "results/6.12.107-1/latest").unlink()
    said.clear()
    _sweep(tmp_path, directory).run(ASKED, said.append)
    assert [True, False] == [": known: " in line for line in said]

    said.clear()
    _sweep(tmp_path, directory, fresh=True).run(ASKED[:1], said.append)
    assert ": known: " not in said[0]


def test_lost_program_is_no_change_and_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = _programs(
        tmp_path / "programs",
        a="pass",
        killer="os.environ['LAB_FAKE_UPSTREAM'] < '6.12' and os.kill(os.getppid(), 9)",
    )
    monkeypatch.setenv("LAB_FAKE", "{}")
    for _ in range(2):
        said: list[str] = []
        columns = _sweep(tmp_path, directory).run(ASKED, said.append)
        assert LOST is columns[0].cells["killer"].verdict
        assert ": known: " not in said[0]
    assert [] == [row.program for row in compared.rows_of(columns) if row.changes]
    assert ExitCode.NOT_PROVED is programs_sweep.concluded(columns, []).code


def test_guest_that_does_not_come_up_leaves_nothing_proved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other kernel is measured; of this one each program says why it never ran."""
    directory = _programs(tmp_path / "programs", a="pass")
    monkeypatch.setenv("LAB_FAKE", "{}")
    monkeypatch.setenv("LAB_FAKE_6_1", json.dumps({"never_boots": True}))
    columns = _sweep(tmp_path, directory).run(ASKED, lambda _: None)
    assert [NEVER, PASSED] == [column.cells["a"].verdict for column in columns]
    conclusion = programs_sweep.concluded(columns, [])
    assert ExitCode.NOT_PROVED is conclusion.code
    assert conclusion.why.startswith("6.1.176: ")


# -- what cannot be meant --------------------------------------------------------------------------


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kernels; a third is known and cannot be had."""
    here = {"6.1": OLD, "6.12": NEW, "6.12.107": NEW}

    def resolve(name: str, **_: Any) -> Kernel:
        if name == "6.6":
            raise KernelUnavailable("no source has 6.6")
        if name not in here:
            raise UsageError(f"unknown kernel {name!r}")
        return here[name]

    monkeypatch.setattr(lab.kernels, "resolve", resolve)
    monkeypatch.setattr("lab.cli.signal.signal", lambda *_: None)  # pytest keeps its own


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("--programs nowhere --kernel 6.1", 2, "--programs nowhere is no directory"),
        ("--programs empty --kernel 6.1", 2, "there is no executable in empty (build them first"),
        ("--programs script --kernel 6.1", 2, "script/a has a #! line and is not executable"),
        ("--programs there --kernel 6.1", 2, "names 6.1, which means 6.1.176-1: there is nothing"),
        ("--programs there --kernel", 2, "expected one argument"),
        ("--programs there --kernel 6.12 --kernel 6.12.107", 2, "6.12 and 6.12.107, which means"),
        ("--programs there --kernel 6.1 --kernel banana", 2, "unknown kernel 'banana'"),
        ("--programs there", 2, "no kernel is named (--kernel 6.1 --kernel 6.12)"),
        ("--kernel 6.1 --kernel 6.12", 2, "required: --programs"),
        ("--programs there --kernel 6.1 --timeout 0", 2, "--timeout is 0, expected a number of"),
        ("--programs there --kernel 6.1 --repeat 0", 2, "--repeat is 0, expected a number of at"),
        ("--programs there --kernel 6.1 --memory 1", 2, "--memory is"),
        ("--programs there --kernel 6.1 --kernel 6.6", 3, "6.6 cannot be had: no source has 6.6"),
        ("--programs there --kernel 6.1 -x", 2, "unknown arguments: -x"),
    ],
)
def test_request_that_cannot_be_meant(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    code: int,
    sentence: str,
) -> None:
    """It is refused before anything boots; the last line has the code and the reason."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    _programs(tmp_path / "there", a="pass")
    _programs(tmp_path / "script", a="pass")
    (tmp_path / "script/a").chmod(0o644)
    try:
        got = main(["sweep", *words.split()])
    except SystemExit as error:
        got = int(error.code or 0)
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert code == got, last
    assert last.startswith(f"lab: exit {code} (")
    assert sentence in last
    assert not (tmp_path / "lab-results").exists()


@pytest.mark.usefixtures("known")
def test_kernel_that_cannot_be_had_leaves_the_others(tmp_path: Path) -> None:
    """Those that can be had are measured, oldest first, and the sentence stays."""
    missing: list[str] = []
    names = ["6.12 6.6", "6.1", "6.12.107"]
    asked = programs_sweep.chosen(names, Project(tmp_path), missing)
    assert [Asked("6.1", OLD), Asked("6.12", NEW)] == asked
    assert ["6.6 cannot be had: no source has 6.6"] == missing


def test_other_programs_are_another_sweep(tmp_path: Path) -> None:
    """What has run counts for these very programs, run in this way."""
    directory = _programs(tmp_path / "programs", a="pass")
    key = programs_sweep._key(directory, ["auto", 45.0])
    assert key == programs_sweep._key(directory, ["auto", 45.0])
    assert key != programs_sweep._key(directory, ["auto", 5.0])
    (directory / "a").chmod(0o644)
    assert key != programs_sweep._key(directory, ["auto", 45.0])
    (directory / "a").chmod(0o755)
    (directory / "data").write_text("x")
    assert key != programs_sweep._key(directory, ["auto", 45.0])
