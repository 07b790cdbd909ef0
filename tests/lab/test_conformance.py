# SPDX-License-Identifier: MIT
"""How `make conformance` judges: what fails on ours alone, and a list that must stay true."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conformance import suites
from tests.conformance.environment import Environment, SetUpError, pinned

pytestmark = pytest.mark.lab

LISTED = {("some", "b"): "a reason"}


def test_what_fails_on_both_is_nobodys_fault() -> None:
    """A test that fails on asyncio too is not held against ioxide."""
    assert [] == suites.judge("some", ({"a"}, {"c"}), ({"a"}, {"c"}), {})


def test_what_fails_on_ours_alone_is_wrong_unless_it_is_listed() -> None:
    """A reason in the list is the only excuse."""
    theirs, ours = ({"a", "b"}, set[str]()), ({"a"}, {"b"})

    assert [] == suites.judge("some", theirs, ours, LISTED)
    (wrong,) = suites.judge("some", theirs, ours, {})
    assert "b fails on ioxide and passes on asyncio" in wrong


def test_a_stale_entry_is_wrong() -> None:
    """An entry whose test passes has to go."""
    (wrong,) = suites.judge("some", ({"a", "b"}, set()), ({"a", "b"}, set()), LISTED)

    assert "remove the entry" in wrong


def test_a_test_that_did_not_run_on_ours_is_wrong() -> None:
    """A suite that ends early, or skips on our loop alone, proves nothing about what is missing."""
    (wrong,) = suites.judge("some", ({"a", "b"}, set()), ({"a"}, set()), {})

    assert "b is gone on ioxide" in wrong


def test_every_entry_has_a_suite_and_a_reason() -> None:
    """The list names suites that there are."""
    packages = {suite.package for suite in suites.SUITES}

    for (suite, _), reason in suites.listed().items():
        assert suite in packages, suite
        assert reason


def test_suites_and_programs_are_pinned() -> None:
    """No run takes whatever version is newest that day."""
    for suite in suites.SUITES:
        assert "==" in pinned(suite.package)
    with pytest.raises(SetUpError, match="add it there"):
        pinned("no-such-package")


@pytest.mark.parametrize("loop", ["asyncio", "ioxide"])
def test_a_suite_that_is_a_package_called_tests_runs(tmp_path: Path, loop: str) -> None:
    """It is found instead of ours wherever its distribution is the working directory."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/__init__.py").touch()
    (tmp_path / "tests/test_it.py").write_text(
        "import asyncio\n"
        "def test_loop() -> None:\n"
        "    loop = asyncio.new_event_loop()\n"
        "    loop.close()\n"
        f"    assert type(loop).__module__.startswith({loop!r})\n"
    )

    class Here(Environment):
        """This very Python; the distribution is there already."""

        def __init__(self) -> None:
            self.python = Path(sys.executable)

        def source(self, name: str) -> Path:  # noqa: ARG002
            return tmp_path

    suite = suites.Suite(package="it", tests=("tests/test_it.py",), enough=1)
    assert ({"tests.test_it::test_loop"}, set()) == suites._outcomes(suite, Here(), loop)
