# SPDX-License-Identifier: MIT
"""One run on several kernels: a verdict for each test on each of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab.suite.lanes import WORTH_A_GUEST
from tests.lab.suite_support import TWO, Little, Ran

pytestmark = pytest.mark.lab

PLUGIN = ("-p", "tests.lab.hostile.plugin")
OLD_FAILS = """
def test_old(): assert os.environ["LAB_FAKE_UPSTREAM"] != "6.1.176"
def test_both(): pass
"""


BEHIND = ("test_behind_a", "test_behind_c")


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    """A directory in which tests in guests leave what they saw."""
    directory = tmp_path / "seen"
    directory.mkdir()
    return directory


def on(little: Little, *words: str, kernels: tuple[str, ...] = ("6.12", "6.1"), **more: str) -> Ran:
    """Plain pytest with these kernels."""
    named = [word for name in kernels for word in ("--kernel", name)]
    return little.pytest("-p", "xdist", *PLUGIN, *named, *words, **more)


def verdicts(ran: Ran) -> dict[str, dict[str, str]]:
    """Verdict by kernel and name of a test."""
    content = json.loads((ran.files / "results.json").read_text())
    return {
        cell: {name.rpartition("::")[2]: one["verdict"] for name, one in leg["verdicts"].items()}
        for cell, leg in content["legs"].items()
        if leg["kernel"] is not None
    }


def suites(file: Path) -> dict[str, dict[str, str]]:
    """What JUnit has of each test, by suite and name: failure, error, or nothing. The property
    says the same kernel as the suite."""
    found: dict[str, dict[str, str]] = {}
    for suite in ElementTree.parse(file).getroot().iter("testsuite"):
        cell = str(suite.get("name"))
        for case in suite.iter("testcase"):
            told = [p.get("value") for p in case.iter("property") if p.get("name") == "kernel"]
            assert cell == told[-1]
            kind = next((kind for kind in ("failure", "error") if case.find(kind) is not None), "")
            assert found.setdefault(cell, {}).setdefault(str(case.get("name")), kind) == kind
    return found


def test_each_test_has_a_verdict_on_each_kernel(little: Little) -> None:
    """One of them fails on one kernel: the other kernel's verdicts stand, JUnit has both, and the
    tables say which."""
    little.tests(OLD_FAILS)

    ran = on(little)

    assert ran.code == 1, ran.output
    assert verdicts(ran) == {
        "6.12.107": {"test_old": "passed", "test_both": "passed"},
        "6.1.176": {"test_old": "failed", "test_both": "passed"},
    }
    assert ran.last_line.startswith("lab: exit 1 (disproved): 6.1.176: tests/test_it.py::test_old")
    (row,) = [line for line in ran.output.splitlines() if line.startswith("tests/test_it.py  ")]
    assert row.split() == ["tests/test_it.py", "2/2", "1/2", "!1", "failed"]
    assert "make lab KERNEL=6.1.176 T=tests/test_it.py::test_old" in ran.output
    assert "[kernel 6.1.176]" in ran.output
    assert "\nFAILED [6.1.176] tests/test_it.py::test_old - " in ran.output
    assert suites(ran.files / "junit.xml") == {
        "6.12.107": {"test_old": "", "test_both": ""},
        "6.1.176": {"test_old": "failure", "test_both": ""},
    }
    document = ElementTree.parse(ran.files / "junit.xml").getroot()
    counts = [
        [suite.get(name) for name in ("name", "tests", "failures", "errors", "skipped")]
        for suite in document.iter("testsuite")
    ]
    assert counts == [["6.12.107", "2", "0", "0", "0"], ["6.1.176", "2", "1", "0", "0"]]


def test_what_failed_on_one_kernel_is_what_failed_last(little: Little) -> None:
    """--lf takes it although it passed on the kernel that came last."""
    little.tests(OLD_FAILS)
    assert on(little, "-n1", kernels=("6.1", "6.12")).code == 1

    ran = on(little, "--lf", kernels=("6.1", "6.12"))

    assert ran.code == 1, ran.output
    assert {tuple(found) for found in verdicts(ran).values()} == {("test_old",)}


def test_what_never_ran_is_not_what_failed_last(little: Little) -> None:
    """As pytest has it: after -x, --lf takes what failed. JUnit has what never ran, too."""
    little.tests("def test_a(): assert False\ndef test_b(): pass\n")

    ran = on(little, "-x", "-n1")

    assert ran.code == 1, ran.output
    assert suites(ran.files / "junit.xml") == {
        "6.12.107": {"test_a": "failure", "test_b": "error"},
        "6.1.176": {"test_a": "error", "test_b": "error"},
    }

    ran = on(little, "--lf", "--collect-only", "-q")

    assert "test_a" in ran.output
    assert "test_b" not in ran.output


def test_suite_of_a_kernel_has_what_its_own_property_says(little: Little) -> None:
    """A test may record a property of that name."""
    little.tests(
        "def test_a(record_property): record_property('kernel', '6.1.176')\n"
        "def test_b(record_property): record_property('kernel', 'mine')\n"
    )

    ran = on(little)

    assert ran.code == 0, ran.output
    tests = {"test_a": "", "test_b": ""}
    assert suites(ran.files / "junit.xml") == {"6.12.107": tests, "6.1.176": tests}


def test_kernel_that_cannot_be_had_is_3_unless_it_may_be_missing(little: Little) -> None:
    little.tests(TWO)

    ran = on(little, kernels=("6.10", "6.12"))
    assert ran.code == 3, ran.output
    assert ran.last_line.startswith("lab: exit 3 (not proved): 6.10: it is missing: no source has")
    assert {"6.12.107": {"test_one": "passed", "test_two": "passed"}} == verdicts(ran)

    ran = on(little, kernels=("6.10", "6.12"), ALLOW_MISSING="6.6 6.10")
    assert ran.code == 0, ran.output
    assert "6.10 is missing: no source has 6.10" in ran.output
    assert ran.last_line == ("lab: exit 0 (proved): 6.12.107: 2 passed; missing, as allowed: 6.10")
    assert "lab: ALLOW_MISSING names 6.6, which is no kernel of this run" in ran.output

    ran = on(little, kernels=("6.10", "6.12"), ALLOW_MISSING="6.12,6.10")
    assert ran.code == 0, ran.output
    assert "ALLOW_MISSING names" not in ran.output

    ran = on(little, kernels=("6.10",), ALLOW_MISSING="6.10")
    assert ran.code == 3, ran.output


def test_kernel_that_cannot_be_fetched_in_the_run_costs_only_its_own(little: Little) -> None:
    little.tests(TWO)

    ran = on(little, LAB_FAKE_6_1=json.dumps({"cannot_be_prepared": True}))

    assert ran.code == 3, ran.output
    assert {"never ran"} == set(verdicts(ran)["6.1.176"].values())
    assert {"passed"} == set(verdicts(ran)["6.12.107"].values())
    assert "6.1.176: the archive does not answer" in ran.last_line


@pytest.mark.parametrize("wrong", [{"never_boots": True}, {"wrong_tree": True}])
def test_guest_of_no_use_costs_only_its_kernel(little: Little, wrong: dict[str, bool]) -> None:
    little.tests(TWO)

    ran = on(little, "-n1", LAB_FAKE_6_1=json.dumps(wrong), kernels=("6.1", "6.12"))

    assert ran.code == 3, ran.output
    assert {"never ran"} == set(verdicts(ran)["6.1.176"].values())
    assert {"passed"} == set(verdicts(ran)["6.12.107"].values())


def test_guest_that_is_lost_costs_only_its_kernels_test(little: Little) -> None:
    """It is gone in the middle of a test, and so is the fresh one; the others go on."""
    little.tests(TWO)

    ran = on(little, LAB_FAKE_6_1=json.dumps({"broken_frame_at": "report"}))

    assert ran.code == 3, ran.output
    assert {"lost"} == set(verdicts(ran)["6.1.176"].values())
    assert {"passed"} == set(verdicts(ran)["6.12.107"].values())
    assert "6.1.176: tests/test_it.py::test_one lost" in ran.last_line


def test_pytests_own_options_on_two_kernels(little: Little) -> None:
    """-k selects, JUnit goes where it is told, and -n 2 on two kernels is two guests, not four."""
    little.tests("def test_inc(): pass\ndef test_other(): assert False\ndef test_since(): pass\n")

    ran = on(little, "-n", "2", "-k", "inc", "-x", "--junitxml=r.xml")

    assert ran.code == 0, ran.output
    assert [{"test_inc": "passed", "test_since": "passed"}] * 2 == [*verdicts(ran).values()]
    cases = ElementTree.parse(little.root / "r.xml").getroot().iter("testcase")
    assert ["test_inc"] * 2 + ["test_since"] * 2 == sorted(str(one.get("name")) for one in cases)
    assert not (ran.files / "junit.xml").exists()
    legs = json.loads((ran.files / "results.json").read_text())["legs"]
    assert [1, 1] == [len(leg["guests"]) for leg in legs.values()]


def test_first_failure_ends_all_kernels(little: Little) -> None:
    little.tests("def test_a(): assert False\ndef test_b(): pass\n")

    ran = on(little, "-x", "-n", "1")

    assert ran.code == 1, ran.output
    assert verdicts(ran) == {
        "6.12.107": {"test_a": "failed", "test_b": "never ran"},
        "6.1.176": {"test_a": "never ran", "test_b": "never ran"},
    }


def test_failures_of_all_kernels_are_counted(little: Little) -> None:
    little.tests("def test_a(): assert False\ndef test_b(): assert False\ndef test_c(): pass\n")

    ran = on(little, "--maxfail=3", "-n", "1")

    assert ran.code == 1, ran.output
    assert verdicts(ran) == {
        "6.12.107": {"test_a": "failed", "test_b": "failed", "test_c": "passed"},
        "6.1.176": {"test_a": "failed", "test_b": "never ran", "test_c": "never ran"},
    }


def test_number_of_guests_is_over_all_kernels(little: Little, seen: Path) -> None:
    """-n 2 on two kernels: a guest of each, at the same time; the tests wait for each other."""
    little.tests(f"""
from pathlib import Path
def test_a():
    mine = os.environ["LAB_FAKE_UPSTREAM"]
    Path({str(seen)!r}, mine).touch()
    deadline = time.monotonic() + 60
    while len(os.listdir({str(seen)!r})) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
""")

    ran = on(little, "-n", "2")

    assert ran.code == 0, ran.output
    assert ["6.1.176", "6.12.107"] == sorted(path.name for path in seen.iterdir())


def test_lane_without_tests_helps_another_kernel(little: Little, seen: Path) -> None:
    """One kernel's only guest waits in its first test until the lane that is through with the other
    kernel has come to it."""
    little.tests(f"""
from pathlib import Path
@pytest.mark.parametrize("n", range({WORTH_A_GUEST + 20}))
def test_it(n):
    if os.environ["LAB_FAKE_UPSTREAM"] == "6.1.176":
        Path({str(seen)!r}, os.environ["LAB_NONCE"]).touch()
        deadline = time.monotonic() + 100
        while len(os.listdir({str(seen)!r})) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
""")

    ran = on(little, "--lab-guests=2")

    assert ran.code == 0, ran.output
    assert 2 == len([*seen.iterdir()])
    assert {"passed"} == {verdict for one in verdicts(ran).values() for verdict in one.values()}


def test_interrupt_ends_the_guests_of_all_kernels(little: Little, seen: Path) -> None:
    """Two of each."""
    for name in "ac":
        little.tests(
            f"""
from pathlib import Path
def test_{name}():
    Path({str(seen)!r}, os.environ["LAB_FAKE_UPSTREAM"] + "{name}").touch()
    time.sleep(3600)
def test_behind_{name}(): pass
""",
            f"tests/test_{name}.py",
        )
    words = [sys.executable, "-m", "lab", "test", "--kernel=6.12 6.1", "--lab-guests=4", *PLUGIN]
    process = subprocess.Popen(
        words,
        cwd=little.root,
        env=little.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    while len([*seen.iterdir()]) < 4:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)

    ran = little.ran(process.returncode, output)

    assert ran.code == 130, output
    lost, never = {"test_a": "lost", "test_c": "lost"}, dict.fromkeys(BEHIND, "never ran")
    assert [lost | never] * 2 == [*verdicts(ran).values()]
    told = {"test_a": "failure", "test_c": "failure"} | dict.fromkeys(BEHIND, "error")
    assert suites(ran.files / "junit.xml") == {"6.12.107": told, "6.1.176": told}
    listed = little.run("lab", "test", "--kernel=6.1", *PLUGIN, "--lf", "--collect-only", "-q")
    assert [name in listed.output for name in ("::test_a", "::test_c", "::test_b")] == [
        *(True, True, False),
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("-n", "0"), "-n 0: tests need at least one guest"),
        (("--lab-guests=0",), "--lab-guests 0: tests need at least one guest"),
        (("-n", "2", "--lab-guests=2"), "-n and --lab-guests both say how many guests"),
        (("-n", "2", "--dist=each"), "--dist=each: the lab hands out"),
        (("--tx", "popen"), "--tx=popen: the workers of a run in guests are the guests"),
        (("-p", "xdist.looponfail", "-f"), "--looponfail: a run in guests ends"),
        (("--kernel", "6.13"), "unknown kernel '6.13'"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(
    little: Little, words: tuple[str, ...], sentence: str
) -> None:
    little.tests(TWO)
    ran = on(little, *words, kernels=("6.12",))
    assert ran.code == 4, ran.output
    assert sentence in ran.output


@pytest.mark.parametrize("number", ["auto", "100"])
def test_guests_are_bounded_by_the_machine(little: Little, number: str) -> None:
    """What is asked beyond that is said, and the run goes on with what there is room for."""
    little.tests(TWO)
    ran = on(little, "-n", number)
    assert ran.code == 0, ran.output
    assert ("8 guests at once, not 100: there is no room" in ran.output) is (number == "100")
    # The path of the test's directory names the worker of xdist that runs it here.
    assert "gw0" not in ran.output.replace(str(little.root), "")


def test_kernel_named_twice_runs_once(little: Little) -> None:
    little.tests(TWO)
    ran = on(little, kernels=("6.12", "6.12.107"))
    assert ran.code == 0, ran.output
    assert "6.12 and 6.12.107 are one kernel, 6.12.107-1, and it runs once" in ran.output
    assert ran.last_line == "lab: exit 0 (proved): 2 passed"


def test_two_kernels_of_one_version_are_two(little: Little) -> None:
    """Two builds of one's own: each has its verdicts, its files and its conclusion."""
    little.tests("def test_it(): pass\n")

    ran = little.run("lab", "test", *PLUGIN, "--kernel-file", "/a", "--kernel-file", "/b")

    assert ran.code == 0, ran.output
    assert ["6.10.0", "6.10.0 (/b)"] == list(verdicts(ran))
    assert "6.10.0 (/b): 1 passed" in ran.last_line
    assert 2 == len([*ran.files.glob("*/console.log")])


def test_only_collected_on_several_kernels(little: Little) -> None:
    little.tests(TWO)
    ran = on(little, "--collect-only")
    assert ran.code == 0, ran.output
    assert not (little.root / "lab-results").exists() or not any(ran.files.parent.iterdir())


def test_option_kernel_of_the_repositorys_own_stays_its_own(little: Little) -> None:
    """The lab's short name gives way to a conftest's, and the long one goes on."""
    little.write(
        "tests/conftest.py",
        "def pytest_addoption(parser): parser.addoption('--kernel', default='theirs')\n",
    )
    little.tests("def test_it(pytestconfig): assert pytestconfig.getoption('kernel') == 'mine'\n")

    ran = little.pytest("--kernel=mine", "tests")

    assert ran.code == 0, ran.output
