# SPDX-License-Identifier: MIT
"""`lab test` on several kernels: which are meant, and what the runs come to together."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from lab import kernels
from lab.commands import choosing
from lab.errors import UsageError
from lab.facts.kernel import Kernel
from lab.facts.verdicts import Conclusion, ExitCode, combined
from lab.kernels import choice
from lab.project import Project
from tests.lab.suite_support import TWO, Little, Ran

pytestmark = pytest.mark.lab


def asked(*words: str, table: Sequence[str] = (), here: Path | None = None) -> tuple[str, ...]:
    """The kernels of a command line, in a repository whose table names these."""
    parser = argparse.ArgumentParser()
    choosing.add_options(parser, several=True)
    project = Project(root=here or Path("/"), kernels=tuple(table)) if table else None
    return choosing.names_of(parser.parse_args(words), project)


def kernel(upstream: str) -> Kernel:
    """A kernel of this version."""
    series = ".".join(upstream.split(".")[:2])
    return Kernel(
        series=series,
        upstream=upstream,
        package=f"{upstream}-1",
        release=f"{upstream}-cloud",
        source="fake",
        locked=False,
        verified_by="nobody",
    )


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the sources offer."""
    offers = tuple(map(kernel, ("6.12.107", "6.12.94", "6.12.90", "6.1.176")))
    monkeypatch.setattr(choice, "offered", lambda: offers)
    monkeypatch.setattr(choice, "known", lambda: offers[-1:])


def test_kernels_are_those_of_the_command_line_else_those_of_the_table() -> None:
    table = ("6.1", "6.12")
    assert asked(table=table) == table
    assert asked("--kernel", "6.6", table=table) == ("6.6",)
    assert asked("--kernel", "6.6 6.1", "--kernel", "6.1", "--kernel=6.18") == (
        *("6.6", "6.1", "6.18"),
    )
    assert asked("--kernel", "./my kernel/vmlinuz") == ("./my kernel/vmlinuz",)
    assert asked("--kernel-file", "/k", "--modules", "/m", table=table) == ("/k:/m",)
    assert asked("--modules", "/m", "--kernel-file", "/k", table=table) == ("/k:/m",)


def test_kernels_of_ones_own_stand_beside_others(tmp_path: Path) -> None:
    """Several, each with the modules behind it; as make hands them over, too, by paths without
    spaces that are there."""
    assert asked(
        *("--kernel-file", "/a", "--kernel", "all", "--kernel-file", "/b", "--modules", "/m"),
        *("--kernel-file", "/c"),
        table=("6.1", "6.12"),
    ) == ("6.1", "6.12", "/a", "/b:/m", "/c")
    here = [tmp_path / name for name in ("bzImage-6.6", "bzImage 6.10")]
    for image in here:
        image.touch()
    assert asked("--kernel", f"6.1 {here[0]} {here[0]}:/m newest") == (
        *("6.1", f"{here[0]}", f"{here[0]}:/m", "newest"),
    )
    assert asked("--kernel", f"{here[1]}") == (f"{here[1]}",)


def test_modules_of_one_kernel_are_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        asked("--kernel-file", "/a", "--modules", "/m", "--modules", "/n", "--kernel-file", "/b")
    assert "--modules /m and --modules /n are of one kernel" in capsys.readouterr().err


@pytest.mark.usefixtures("archive")
def test_a_pattern_means_series_or_else_releases() -> None:
    series = asked("--kernel", "6.1*")
    assert series[0] == "6.1"
    assert {"6.10", "6.12", "6.18"} <= set(series)
    assert list(series) == sorted(series, key=lambda name: int(name.split(".")[1]))
    assert asked("--kernel", "6.12.9*") == ("6.12.90", "6.12.94")
    assert asked("--kernel", "6.12.9?", table=("6.1",)) == ("6.12.90", "6.12.94")
    assert asked(table=("6.12.10[0-9]", "6.1.*")) == ("6.12.107", "6.1.176")


@pytest.mark.usefixtures("archive")
def test_groups_of_kernels_have_names() -> None:
    table = ("6.1", "newest")
    assert asked("--kernel", "all", "--kernel", "6.1", table=table) == table
    assert asked("--kernel", "every") == ("6.1.176", "6.12.90", "6.12.94", "6.12.107")


def test_kernel_of_ones_own_stands_for_its_series_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a series that somebody names it is another kernel."""
    monkeypatch.setattr(choice, "resolve", lambda name: kernel("6.6.30" if name == "/a" else name))
    table = ("6.1", "6.6", "newest")

    assert asked("--kernel-file", "/a", "--kernel", "all", table=table) == ("6.1", "newest", "/a")
    assert asked("--kernel", "/a", "--kernel", "all", table=table) == ("/a", "6.1", "newest")
    assert asked("--kernel", "6.6", "--kernel-file", "/a", table=table) == ("6.6", "/a")
    assert asked("--kernel", "all 6.6", "--kernel-file", "/a", table=table) == (
        *("6.1", "newest", "6.6", "/a"),
    )


@pytest.mark.usefixtures("archive")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--kernel", "all"), "'all' means the kernels of the table, and it names none"),
        ((), "no kernel is named"),
        (("--kernel", " "), "--kernel names no kernel"),
        (("--kernel", "5.*"), "no kernel matches '5.*'"),
        (("--kernel", "6.1", "--modules", "/m"), "--modules goes with --kernel-file"),
        (("--modules", "/m"), "--modules goes with --kernel-file"),
    ],
)
def test_what_names_no_kernel_is_said(words: Sequence[str], sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        asked(*words)
    assert sentence in str(raised.value)


def test_the_heaviest_conclusion_is_that_of_all() -> None:
    proved = Conclusion(ExitCode.PROVED, "2 passed")
    missing = Conclusion(ExitCode.NOT_PROVED, "no source has it")
    failed = Conclusion(ExitCode.DISPROVED, "test_a failed")
    assert combined({"6.1": failed}) is failed
    assert combined({"6.1": proved, "6.6": missing, "6.7": missing}) == Conclusion(
        ExitCode.NOT_PROVED, "6.6: no source has it; and 1 more of 3 kernels"
    )
    assert combined({"6.6": missing, "6.1": failed}).why == "6.1: test_a failed"
    whole = combined({"6.1": proved, "6.12": proved})
    assert whole == Conclusion(ExitCode.PROVED, "6.1: 2 passed; 6.12: 2 passed")


def test_kernel_that_may_be_missing_is_named_with_the_conclusion() -> None:
    """Also beside one other kernel alone, and whatever the others come to."""
    proved = Conclusion(ExitCode.PROVED, "2 passed")
    failed = Conclusion(ExitCode.DISPROVED, "test_a failed")
    assert combined({"6.12 as 6.1": proved}, without=["6.6"]) == Conclusion(
        ExitCode.PROVED, "6.12 as 6.1: 2 passed; missing, as allowed: 6.6"
    )
    assert combined({"6.1": proved, "6.12": failed}, without=["6.6", "6.10"]) == Conclusion(
        ExitCode.DISPROVED, "6.12: test_a failed; missing, as allowed: 6.6, 6.10"
    )


def without_kernel(little: Little, *words: str, table: Sequence[str] = ("6.12",)) -> Ran:
    """`lab test` with a fake guest and these kernels in the table."""
    settings = (little.root / "pyproject.toml").read_text()
    kernels_line = f"kernels = {json.dumps(list(table))}"
    little.write("pyproject.toml", settings.replace('kernels = ["6.12"]', kernels_line))
    return little.run("lab", "test", "-p", "tests.lab.hostile.plugin", *words, LAB_FAKE="{}")


def test_without_a_kernel_the_run_is_on_those_of_the_table(little: Little) -> None:
    """One that cannot be had is named, and is 3."""
    little.tests(TWO)

    ran = without_kernel(little, table=("6.10", "6.12"))

    assert ran.code == 3, ran.output
    assert "2/2" in ran.output
    assert ran.last_line.startswith("lab: exit 3 (not proved): 6.10: it is missing: no source has")


def test_the_worst_of_the_kernels_is_the_exit_code(little: Little) -> None:
    """As make hands them over. What was disproved outweighs what could not be had."""
    little.tests("def test_one(): assert False\n")

    ran = little.lab(kernel="6.12 6.10")

    assert ran.code == 1, ran.output
    assert ran.last_line.startswith("lab: exit 1 (disproved): 6.12.107: tests/test_it.py::test_one")


def test_a_run_on_one_kernel_of_the_table_is_as_if_it_were_named(little: Little) -> None:
    little.tests(TWO)
    ran = without_kernel(little)
    assert ran.code == 0, ran.output
    assert ran.last_line == "lab: exit 0 (proved): 2 passed"
    assert little.lab("--collect-only", kernel="6.12 6.12").code == 0


def test_a_request_that_no_kernel_could_change_is_said_once(little: Little) -> None:
    little.tests(TWO)
    ran = little.lab("--pdb", kernel="6.12 6.10")
    assert ran.code == 2, ran.output
    assert 1 == ran.output.count("ERROR: --pdb")
    assert kernels.matching(("6.12", "6.12")) == ("6.12",)


def test_no_table_and_no_kernel_is_2(little: Little) -> None:
    little.write("pyproject.toml", "[project]\nname = 'a'\n")
    ran = little.run("lab", "test")
    assert ran.code == 2
    assert "no kernel is named (name one with --kernel 6.12" in ran.last_line
    little.write("pyproject.toml", "[tool.lab]\nkernels = 6.12\n")
    ran = little.run("lab", "test")
    assert ran.code == 2
    assert (
        "pyproject.toml:2: kernels is 6.12, expected a list of kernels in quotes" in ran.last_line
    )
