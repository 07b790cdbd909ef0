# SPDX-License-Identifier: MIT
"""Plain `pytest` on this machine obeys the same law as a run in a guest."""

from __future__ import annotations

import pytest

from tests.lab.suite_support import Little

pytestmark = pytest.mark.lab


def test_needs_gate_asks_the_probe(little: Little) -> None:
    """A test runs where its capabilities are observed and is skipped, with the note, elsewhere."""
    little.tests("""
@pytest.mark.needs("INC")
def test_inc(): pass
@pytest.mark.needs("INC", "NAPI")
def test_napi(): assert False
@pytest.mark.needs("ZCRX")
def test_could_not_be_tried(): assert False
""")

    ran = little.pytest("-m", "not lab")

    assert ran.code == 0, ran.output
    assert "1 passed, 2 skipped" in ran.output
    assert "needs NAPI: not observed on" in ran.output
    assert "(counter stayed 0)" in ran.output


def test_unknown_capability_is_a_failure(little: Little) -> None:
    """A capability the probe does not know must not look like a kernel without it."""
    with (little.root / "tests/kernels/expected.toml").open("a") as contract:
        contract.write('"99.0".FORGOTTEN = "yes, assumed"\n')
    little.tests("""
@pytest.mark.needs("FORGOTTEN")
def test_forgotten(): pass
@pytest.mark.needs()
def test_empty(): pass
""")

    ran = little.pytest()

    assert ran.code == 1, ran.output
    assert "'FORGOTTEN': the probe knows no such capability" in ran.output
    assert "needs() names no capability" in ran.output
    assert "2 errors" in ran.output


def test_forbidden_io_uring_is_a_failure(little: Little) -> None:
    """Where io_uring cannot be used, a test that needs it fails with the probe's sentence."""
    little.tests("@pytest.mark.needs('NAPI')\ndef test_a(): pass\ndef test_b(): pass\n")

    ran = little.pytest(CANNED_ERROR="io_uring is forbidden here: do this")

    assert ran.code == 1, ran.output
    assert "io_uring is forbidden here: do this" in ran.output


def test_excuse_is_a_failure(little: Little) -> None:
    """A skip that no probe confirms, and any xfail, fails here as it does in a guest."""
    little.tests("""
import unittest
def test_good(): pass
def test_skip(): pytest.skip("because")
@pytest.mark.skip
def test_mark(): pass
@pytest.mark.skipif(True, reason="old kernel")
def test_skipif(): pass
@pytest.mark.xfail
def test_xfail(): assert False
@pytest.mark.xfail(strict=False)
def test_xpass(): pass
def test_xfail_call(): pytest.xfail("known")
class TestUnit(unittest.TestCase):
    def test_unit(self): self.skipTest("x")
""")

    ran = little.pytest()

    assert ran.code == 1, ran.output
    assert "5 failed, 1 passed, 2 errors" in ran.output


@pytest.mark.parametrize(
    "text",
    [
        "pytest.skip('whole file', allow_module_level=True)",
        "pytest.importorskip('no_such_module')",
        "import unittest\nraise unittest.SkipTest('whole file')",
        "@pytest.mark.parametrize('x', [])\ndef test_x(x): pass",
    ],
)
def test_file_that_hides_its_tests_is_an_error(little: Little, text: str) -> None:
    """A skip at collection time and an empty parameter set are collection errors."""
    little.tests(text, "tests/test_hiding.py")
    little.tests("def test_good(): pass\n")

    ran = little.pytest()

    assert ran.code == 2, ran.output
    assert "ERROR tests/test_hiding.py" in ran.output


def test_nothing_passed_is_not_0(little: Little) -> None:
    """A session in which every test is skipped is not green, however good the reasons."""
    little.tests("@pytest.mark.kernel_gated\n@pytest.mark.needs('NAPI')\ndef test_a(): pass\n")

    ran = little.pytest("-m", "kernel_gated")

    assert ran.code == 3, ran.output
    assert "nothing passed, so nothing is proved" in ran.output


@pytest.mark.parametrize("arguments", [("--collect-only",), ("--fixtures",), ("--markers",)])
def test_looking_is_allowed(little: Little, arguments: tuple[str, ...]) -> None:
    """Commands of pytest that only show something are not runs."""
    little.tests("def test_a(): pass\n")

    assert little.pytest(*arguments).code == 0


def test_slow_tests_are_taken_when_asked_for(little: Little) -> None:
    """SLOW=1, --lab-slow and -m slow each take the slow tests; else their count is printed."""
    little.tests("def test_a(): pass\n@pytest.mark.slow\ndef test_b(): pass\n")

    without = little.pytest()

    assert "1 slow test left out; SLOW=1 takes them" in without.output
    assert "1 passed, 1 deselected" in without.output
    assert "2 passed" in little.pytest(SLOW="1").output
    assert "2 passed" in little.pytest("--lab-slow").output
    assert "1 passed, 1 deselected" in little.pytest("-m", "slow").output
    assert "1 slow test left out" in little.pytest(SLOW="0").output
