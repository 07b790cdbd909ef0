# SPDX-License-Identifier: MIT
"""Plain `pytest -n 2` on this machine: several processes obey the law as one does."""

from __future__ import annotations

import os

import pytest

from lab.rules.contract import series_of_release
from tests.lab.suite_support import PRESENT, Little

pytestmark = pytest.mark.lab

HERE = series_of_release(os.uname().release)
ALONE: tuple[str, ...] = ()
SPREAD = ("-p", "xdist", "-n", "2")
TESTS = """
def test_plain(): pass
@pytest.mark.needs("INC")
def test_inc(): pass
@pytest.mark.needs("NAPI")
def test_napi(): pass
"""


@pytest.fixture(params=[ALONE, SPREAD], ids=["alone", "spread"])
def how(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """How pytest is to run: in one process or in several. What comes of it is the same."""
    found: tuple[str, ...] = request.param
    return found


def _promise(little: Little, cell: str) -> None:
    with (little.root / "tests/kernels/expected.toml").open("a") as file:
        file.write(f'"{HERE}".{cell}\n')


def test_good_session_is_0(little: Little, how: tuple[str, ...]) -> None:
    """What is absent by probe and contract is skipped."""
    little.tests(TESTS)

    ran = little.pytest(*how)

    assert ran.code == 0, ran.output
    assert "2 passed, 1 skipped" in ran.output


def test_surprise_is_1(little: Little, how: tuple[str, ...]) -> None:
    """A capability that is there although the contract denies it makes the session red, also when
    the tests that asked for it ran in a process of their own; it is told once."""
    _promise(little, 'INC = "no, measured"')
    little.tests(TESTS)

    ran = little.pytest(*how)

    assert ran.code == 1, ran.output
    assert 1 == ran.output.count(f"surprise: INC is denied {HERE} (measured")
    assert "2 passed, 1 skipped" in ran.output


def test_nothing_passed_is_3(little: Little, how: tuple[str, ...]) -> None:
    """A session of skipped tests proves nothing."""
    little.tests(TESTS)

    ran = little.pytest(*how, "-k", "napi")

    assert ran.code == 3, ran.output
    assert "nothing passed, so nothing is proved" in ran.output


def test_erratum_is_found_and_green(little: Little, how: tuple[str, ...]) -> None:
    """A reproducer that finds its erratum is an xfail, which travels between processes."""
    node = "tests/kernel_gated/errata/test_errata_it.py::test_it"
    little.write(
        "tests/kernels/errata.toml",
        f"""
[[erratum]]
id = "IOX-ERR-001"
title = "It is broken"
capability = "INC"
reproducer = "{node}"
known_bad = []
known_good = []
links = []
""",
    )
    little.tests(
        f"""
{PRESENT}
@pytest.mark.needs("INC")
def test_it(): raise ErratumPresent("IOX-ERR-001", "res=1")
def test_fine(): pass
""",
        node.partition("::")[0],
    )

    ran = little.pytest(*how)

    assert ran.code == 0, ran.output
    assert "1 passed, 1 xfailed" in ran.output


def test_process_that_ends_without_a_word_is_not_0(little: Little) -> None:
    """A process of pytest-xdist that is gone behind its last test may have seen a surprise."""
    little.tests(TESTS)
    little.write(
        "tests/conftest.py",
        """
import os
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    if getattr(session.config, "workerinput", {}).get("workerid") == "gw0":
        os._exit(0)
""",
    )

    ran = little.pytest(*SPREAD)

    assert ran.code == 3, ran.output
    assert "a process of pytest-xdist ended without a word: exit 3" in ran.output
