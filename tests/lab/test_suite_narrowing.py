# SPDX-License-Identifier: MIT
"""What a run says of the options that left tests out of it."""

from __future__ import annotations

import pytest

from tests.lab.suite_support import TWO, Little

pytestmark = pytest.mark.lab

ONE, OTHER = "tests/test_it.py::test_one", "tests/test_it.py::test_two"


def test_what_leaves_tests_out_is_in_the_results(little: Little) -> None:
    """Whoever holds the results against a plan sees that they are of fewer tests. What depends on
    the run before is in no line that is to run tests again."""
    little.tests(TWO)

    ran = little.lab("--deselect", ONE, "--ignore-glob=*none*", "--lf", "-v", "--maxfail=3")

    assert ran.code == 0, ran.output
    assert ran.verdicts == {"test_two": "passed"}
    assert ran.results is not None
    assert ran.results["narrowed"] == [f"--deselect={ONE}", "--ignore-glob=*none*", "--lf"]

    ran = little.lab(PYTEST_ADDOPTS="-p pytest_timeout -o python_functions=test_t* -k one -k two")

    assert ran.verdicts == {"test_two": "passed"}, ran.output
    assert ran.results is not None
    assert ran.results["narrowed"] == ["-k", "two", "-o", "python_functions=test_t*"]


def test_settings_of_the_repository_narrow_no_run(little: Little) -> None:
    """They are the same for each run, and no plan names them."""
    settings = (little.root / "pyproject.toml").read_text()
    little.write("pyproject.toml", settings.replace('"-ra"', f'"-ra", "--deselect={ONE}"'))
    little.tests(TWO)

    ran = little.lab("-x")

    assert ran.verdicts == {"test_two": "passed"}, ran.output
    assert ran.results is not None
    assert ran.results["narrowed"] == []
