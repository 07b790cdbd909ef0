# SPDX-License-Identifier: MIT
"""What people see of a run."""

from __future__ import annotations

import os
import re
import shlex

import pytest

from lab.facts.records import Record
from lab.facts.verdicts import Verdict
from lab.report import progress
from lab.report.progress import PlainProgress
from tests.lab.suite_support import Little

pytestmark = pytest.mark.lab


def test_plain_lines_say_which_how_many_and_what() -> None:
    """Each verdict is a line with its number, the total, the test, the verdict and why."""
    lines: list[str] = []
    shown = PlainProgress(lines.append)
    shown.expect(12)

    shown.phase("booting")
    shown.begin("tests/a.py::test_a")
    shown.verdict("tests/a.py::test_a", Record(Verdict.PASSED, 1.25))
    shown.verdict("tests/a.py::test_b", Record(Verdict.LOST, 0.5, "it died"))

    assert lines[0] == "lab: booting"
    assert re.fullmatch(r"\[ 1/12 +0s\] passed    tests/a.py::test_a \(1.2 s\)", lines[1])
    assert re.fullmatch(r"\[ 2/12 +0s\] lost      tests/a.py::test_b \(0.5 s\)  it died", lines[2])
    assert shown.counts() == "1 passed, 1 lost"


def test_what_was_asked_of_the_guests_is_told(little: Little) -> None:
    """The report, its JSON and the line that runs a test again name the guest's wishes."""
    little.tests("def test_one(): assert False\n")

    ran = little.lab("--cpus", "2", "--sysctl", "vm.swappiness=1", "--sysctl", "a.b=1 2")

    assert ran.code == 1, ran.output
    wishes = ["--cpus=2", "--sysctl=a.b=1 2", "--sysctl=vm.swappiness=1"]
    assert ran.results is not None
    assert ran.results["wishes"] == wishes
    assert "guests with --cpus=2 '--sysctl=a.b=1 2' --sysctl=vm.swappiness=1" in ran.output
    assert "T=tests/test_it.py::test_one ARGS=" in ran.output
    (line,) = [one for one in ran.output.splitlines() if one.startswith("    make lab")]
    (words,) = [one for one in shlex.split(line) if one.startswith("ARGS=")]
    assert shlex.split(words.removeprefix("ARGS=")) == wishes


def test_the_line_that_runs_a_test_again_needs_no_makefile(little: Little) -> None:
    """Where the table does not speak of make, the line is for the lab's own command."""
    settings = little.root / "pyproject.toml"
    settings.write_text(settings.read_text().replace("by-make = true\n", ""))
    little.tests("""
@pytest.mark.parametrize("x", ["a b"])
def test_bad(x): assert not x
""")

    ran = little.lab("--memory=512M")

    assert ran.code == 1, ran.output
    line = (
        "    python -m lab test --kernel 6.12.107 --memory=512M 'tests/test_it.py::test_bad[a b]'\n"
    )
    assert line in ran.output


def test_what_the_table_asks_is_not_typed_again(little: Little) -> None:
    """Every guest has it, and the line that runs a test again finds it in the table, too."""
    settings = little.root / "pyproject.toml"
    table = "[tool.lab]\ncpus = 2\ndevices = ['network-pair']\n"
    settings.write_text(settings.read_text().replace("[tool.lab]\n", table, 1))
    little.tests("def test_one(): assert False\n")

    ran = little.lab("--memory=512")

    assert ran.code == 1, ran.output
    assert ran.results is not None
    wishes = ["--cpus=2", "--memory=512M", "--device=network-pair"]
    assert [guest["wishes"] for guest in ran.results["guests"]] == [wishes]
    assert (
        "make lab KERNEL=6.12.107 T=tests/test_it.py::test_one ARGS=--memory=512M\n" in ran.output
    )


@pytest.mark.parametrize("options", [("--memory=1Q",), ("--cpus", "0")])
def test_a_wish_that_cannot_be_meant_is_usage(little: Little, options: tuple[str, ...]) -> None:
    """For `lab test` and for pytest with the plugin alike, before anything boots."""
    little.tests("def test_one(): pass\n")

    ran = little.lab(*options)
    assert ran.code == 2, ran.output
    assert f"{options[0].partition('=')[0]} is " in ran.last_line
    mine = ("--lab-kernel=6.12", "-p", "tests.lab.hostile.plugin")
    again = little.pytest(*mine, *(one.replace("--", "--lab-") for one in options))
    assert again.code == 4, again.output
    assert f"{options[0].partition('=')[0].replace('--', '--lab-')} is " in again.output


def test_silence_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that takes long is named again, so that nobody takes the run for dead."""
    monkeypatch.setattr(progress, "SILENCE_SECONDS", -1.0)
    lines: list[str] = []
    shown = PlainProgress(lines.append)

    shown.tick()
    assert lines == []

    shown.begin("tests/a.py::test_a")
    shown.tick()
    assert lines == ["lab: still in tests/a.py::test_a, for 0 s"]


def test_report_says_what_was_done(little: Little) -> None:
    """The closing report names release, accelerator and reason, the probe, issues and counts."""
    little.tests("""
@pytest.mark.issue(92)
@pytest.mark.needs("NAPI")
def test_absent(): pass
@pytest.mark.issue(104)
def test_here(): pass
@pytest.mark.slow
def test_slow(): pass
""")

    ran = little.lab()

    assert ran.code == 0, ran.output
    for words in (
        f"release {os.uname().release}, package 6.12.107-1 from fake",
        "accel tcg: a fake guest, no machine at all",
        "NAPI        -         no        no        no        counter stayed 0",
        "#92     absent here",
        "#104    proved",
        "collected 3 / selected 2 / proved 1 (left out: 1 slow)",
    ):
        assert words in ran.output
    assert ran.results is not None
    assert ran.results["exit"] == {"code": 0, "why": "1 passed, 1 skipped"}
    assert ran.results["left_out"] == {"lab": 0, "slow": 1}


def test_hole_of_an_issue_whose_work_is_in_is_red(little: Little) -> None:
    """An issue that is in and of which nothing passed makes a whole run red, not a narrow one."""
    little.write("tests/kernels/issues_in.txt", "92\n")
    little.tests("def test_here(): pass\n")

    assert little.lab().last_line.startswith("lab: exit 1 (disproved): issue 92 is in, but no test")
    assert little.lab("-k", "here").code == 0
