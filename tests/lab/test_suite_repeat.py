# SPDX-License-Identifier: MIT
"""`--repeat N`: a selection is run several times, and each verdict is counted."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from xml.etree import ElementTree

import jsonschema
import pytest

from lab.facts.records import Record, of_runs
from lab.facts.verdicts import Verdict
from lab.suite import selection
from tests.lab.suite_support import REPOSITORY, Little, Ran
from tests.lab.test_programs_run import GOOD, programs

pytestmark = pytest.mark.lab

SCHEMA = json.loads((REPOSITORY / "docs/results.schema.json").read_text())


def flaky(little: Little, directory: Path, *, red: int) -> None:
    """One test that fails in its run number `red` on each kernel, and one that never does; each
    leaves a line."""
    little.tests(f"""
from pathlib import Path

@pytest.fixture
def count(request):
    path = Path({str(directory)!r}, request.node.name + os.environ["LAB_FAKE_UPSTREAM"])
    with path.open("a") as file:
        file.write(".")
    return len(path.read_text())

def test_flaky(count): assert count != {red}, "now and then"
def test_firm(count, tmp_path): assert [] == [*tmp_path.iterdir()]
""")


def runs(ran: Ran, test: str, leg: str = "6.12.107") -> Counter[str]:
    """How often each verdict came, by results.json, which fits the schema."""
    whole = json.loads((ran.files / "results.json").read_text())
    jsonschema.validate(whole, SCHEMA)
    record = whole["legs"][leg]["verdicts"][f"tests/test_it.py::{test}"]
    return Counter(run["verdict"] for run in record["runs"])


def test_each_verdict_is_counted_and_one_failure_is_1(little: Little, tmp_path: Path) -> None:
    """In the report, in results.json, in the summary and in JUnit, which has each run; the next
    --lf takes what failed once, although it passed in the last run."""
    flaky(little, tmp_path, red=2)

    ran = little.lab("--repeat", "3", "--lab-guests=1")

    assert ran.code == 1, ran.output
    assert runs(ran, "test_flaky") == {"passed": 2, "failed": 1}
    assert runs(ran, "test_firm") == {"passed": 3}
    assert ran.verdicts == {"test_flaky": "failed", "test_firm": "passed"}
    assert ran.why("test_flaky").startswith("2 passed, 1 failed: AssertionError: now and then")
    lines = ran.output.splitlines()
    begun = lines.index("how often, in 3 runs:")
    assert lines[begun + 1 : begun + 3] == [
        "  2 passed, 1 failed: tests/test_it.py::test_flaky",
        "  3 passed: tests/test_it.py::test_firm",
    ]
    assert "failed    tests/test_it.py::test_flaky (run 2 of 3)" in ran.output
    assert (
        "| tests/test\\_it.py::test\\_flaky | 2 passed, 1 failed |"
        in (ran.files / "summary.md").read_text()
    )
    cases = list(ElementTree.parse(ran.files / "junit.xml").getroot().iter("testcase"))
    told = [
        (case.get("name"), p.get("value"), case.find("failure") is not None)
        for case in cases
        for p in case.iter("property")
        if p.get("name") == "run"
    ]
    assert sorted(told) == [
        ("test_firm", "1", False),
        ("test_firm", "2", False),
        ("test_firm", "3", False),
        ("test_flaky", "1", False),
        ("test_flaky", "2", True),
        ("test_flaky", "3", False),
    ]
    again = little.lab("--lf", "--repeat=1")
    assert list(again.verdicts) == ["test_flaky"]


def test_every_run_good_is_0(little: Little, tmp_path: Path) -> None:
    """On two kernels with two guests, by pytest's own command line: each test ran as often as it
    was asked on each kernel."""
    flaky(little, tmp_path, red=0)

    kernels = ("--kernel", "6.12", "--kernel", "6.1")
    plugins = ("-p", "xdist", "-p", "tests.lab.hostile.plugin")
    ran = little.pytest(*plugins, *kernels, "-n", "2", "--repeat=4")

    assert ran.code == 0, ran.output
    for upstream in ("6.12.107", "6.1.176"):
        for test in ("test_flaky", "test_firm"):
            assert "...." == (tmp_path / f"{test}{upstream}").read_text()
            assert runs(ran, test, upstream) == {"passed": 4}
    assert "6.12.107: 2 passed, in 4 runs each" in ran.last_line


def test_first_failure_ends_all_runs(little: Little, tmp_path: Path) -> None:
    flaky(little, tmp_path, red=2)

    ran = little.lab("--repeat", "3", "-x", "--lab-guests=1")

    assert ran.code == 1, ran.output
    assert runs(ran, "test_flaky") == {"passed": 1, "failed": 1, "never ran": 1}
    assert runs(ran, "test_firm") == {"passed": 1, "never ran": 2}
    assert ran.verdicts == {"test_flaky": "failed", "test_firm": "never ran"}


def test_fixtures_of_one_run_are_not_those_of_the_next(little: Little, tmp_path: Path) -> None:
    """Also where one test alone is run again and again in one process."""
    log = tmp_path / "log"
    little.tests(f"""
def say(word):
    with open({str(log)!r}, "a") as file:
        print(word, file=file)

@pytest.fixture
def mine():
    say("up")
    yield
    say("down")

def test_it(mine): pass
""")

    ran = little.lab("--repeat", "3")

    assert ran.code == 0, ran.output
    assert ["up", "down"] * 3 == log.read_text().split()


def test_lost_run_is_3_and_the_others_count(little: Little, tmp_path: Path) -> None:
    flaky(little, tmp_path, red=0)
    little.tests(
        f"""
from pathlib import Path
def test_dies():
    try: os.mkdir({str(tmp_path / "once")!r})
    except FileExistsError: return
    os._exit(1)
""",
        "tests/test_dies.py",
    )

    ran = little.lab("--repeat", "2", "--lab-guests=1", "tests/test_dies.py", "tests/test_it.py")

    assert ran.code == 3, ran.output
    assert ran.verdicts == {"test_dies": "lost", "test_flaky": "passed", "test_firm": "passed"}
    assert ran.why("test_dies").startswith("1 passed, 1 lost: ")
    assert runs(ran, "test_firm") == {"passed": 2}


@pytest.mark.parametrize("number", ["0", "-1", "x", "1.5", "", "10001", "999999999999", "٣"])
def test_number_that_cannot_be_meant(number: str) -> None:
    config = cast("Any", SimpleNamespace(getoption=lambda _: number))
    with pytest.raises(pytest.UsageError, match="how often each test is run is a number from 1 to"):
        selection.times(config)


def test_number_that_cannot_be_meant_is_one_sentence(little: Little) -> None:
    little.tests("def test_it(): pass\n")

    ran = little.lab("--repeat", "0")

    assert ran.code == 2, ran.output
    assert 1 == ran.output.count("ERROR: --repeat 0: how often each test is run is a number from 1")
    assert "Traceback" not in ran.output


def test_plain_pytest_repeats_nothing(little: Little) -> None:
    """And says so, instead of running once."""
    little.tests("def test_it(): pass\n")
    ran = little.pytest("--repeat", "3")
    assert ran.code == 4, ran.output
    assert "--repeat 3 is of runs in guests: name a kernel" in ran.output


def test_worst_run_is_the_verdict() -> None:
    """What disproves outweighs what was lost, that outweighs a skip, and a skip a pass."""
    order = (Verdict.SPLAT, Verdict.LOST, Verdict.SKIPPED, Verdict.PASSED)
    for first, verdict in enumerate(order):
        made = of_runs([Record(one, 1.5, f"why {one}") for one in order[first:]])
        assert (verdict, 1.5 * (4 - first)) == (made.verdict, made.seconds)
    assert made.why == "why passed"
    assert of_runs([Record(Verdict.PASSED), Record(Verdict.LOST, why="gone")]).why == (
        "1 passed, 1 lost: gone"
    )


def test_every_kind_of_test_can_be_run_again(little: Little, tmp_path: Path) -> None:
    """Of pytest, of unittest with its parts, a program, one on the host, and one in another guest.
    What a class and a module share is made for each run of the file."""
    programs(little, {"tap": GOOD})
    little.tests(f"""
import unittest

@pytest.fixture(scope="module")
def shared():
    with open({str(tmp_path / "shared")!r}, "a") as file:
        file.write("x")

class TestBoth:
    seen = 0
    def test_one(self, shared): self.own = 1
    def test_two(self, shared): assert not hasattr(self, "own")

class Old(unittest.TestCase):
    def setUp(self): self.value = 1
    def test_parts(self):
        for n in range(2):
            with self.subTest(n=n): self.assertEqual(self.value, 1)

def test_output(capsys, monkeypatch, caplog, tmp_path_factory):
    monkeypatch.setenv("X", "1")
    print("out")
    assert capsys.readouterr().out == "out\\n"

def test_on_the_host(guest_host): assert guest_host.check_output("echo a") == "a"

@pytest.mark.guest(memory="900M")
def test_elsewhere(): pass
""")

    ran = little.lab("--repeat", "2", "--lab-guests=1")

    assert ran.code == 0, ran.output
    assert ran.results is not None
    often = {
        name.rpartition("::")[2]: [run["verdict"] for run in found["runs"]]
        for name, found in ran.results["verdicts"].items()
    }
    names = ("test_one", "test_two", "test_parts", "test_output", "test_on_the_host")
    assert often == dict.fromkeys((*names, "test_elsewhere", "unit/tap"), ["passed"] * 2)
    assert "xx" == (tmp_path / "shared").read_text()
    assert 2 == len(ran.results["guests"])
