# SPDX-License-Identifier: MIT
"""A disk that is full: no verdict is lost, and the run says so in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.suite_support import Little

pytestmark = pytest.mark.lab

FULL = """
import builtins, errno, io, os
really = io.open

def opened(file, mode="r", *more, **named):
    words = os.fspath(file) if isinstance(file, (str, os.PathLike)) else ""
    # QEMU writes the console by itself.
    if "lab-results/" in words and not words.endswith("console.log") and os.path.exists({mark!r}):
        if set(mode) & set("wax"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), words)
    return really(file, mode, *more, **named)

builtins.open = io.open = opened
"""
"""A plugin: from the moment at which there is a mark, no file of the results can be written."""
NOT_CONSOLE = 'not words.endswith("console.log") and '
TESTS = """
def test_good(): pass
def test_fills():
    with open({mark!r}, "w"): pass
def test_behind(): print("words that would be kept")
"""


@pytest.mark.parametrize(
    ("more", "code", "why"),
    [
        ("", 3, "not all could be kept in the run's files: "),
        ("def test_bad(): assert False\n", 1, "tests/test_it.py::test_bad failed (3 passed"),
    ],
    ids=["good", "failed"],
)
def test_disk_that_fills_in_the_run_takes_no_verdict(
    little: Little, tmp_path: Path, more: str, code: int, why: str
) -> None:
    mark = str(tmp_path / "full")
    little.write("full_disk.py", FULL.format(mark=mark))
    little.tests(TESTS.format(mark=mark) + more)

    ran = little.lab("-p", "full_disk", "--lab-guests=1")

    assert ran.code == code, ran.output
    for name in ("good", "fills", "behind"):
        assert f"passed    tests/test_it.py::test_{name} " in ran.output
    assert ran.last_line.partition("): ")[2].startswith(why)
    assert 1 == ran.output.count("not proved: not all could be kept in the run's files: ")
    assert 1 == ran.output.count("not proved: the results of this run cannot be written: No space")
    assert not [word for word in ("Traceback", "INTERNALERROR") if word in ran.output]
    left = {path.name for path in ran.files.iterdir()}
    assert {"console.log", "kernel.log", "printed.log", "probe.json"} == left


def test_results_that_cannot_be_written_are_not_proved(little: Little, tmp_path: Path) -> None:
    """The disk fills when all else is kept: at the end of the last test."""
    mark = str(tmp_path / "full")
    plugin = FULL.replace('"lab-results/" in words', '"results.json" in words')
    little.write("full_disk.py", plugin.format(mark=mark))
    little.tests(f"def test_fills(): open({mark!r}, 'w').close()\n")

    ran = little.lab("-p", "full_disk")

    assert ran.code == 3, ran.output
    assert "the results of this run cannot be written: No space left on device" in ran.last_line
    assert 'verdict" value="passed"' in (ran.files / "junit.xml").read_text()


def test_disk_that_is_full_before_the_run_is_one_sentence(little: Little, tmp_path: Path) -> None:
    """No test runs, and each has its verdict."""
    mark = tmp_path / "full"
    mark.touch()
    little.write("full_disk.py", FULL.format(mark=str(mark)).replace(NOT_CONSOLE, ""))
    little.tests("def test_one(): pass\ndef test_two(): pass\n")

    ran = little.lab("-p", "full_disk")

    assert ran.code == 3, ran.output
    assert "lab: exit 3 (not proved): " in ran.last_line
    assert "No space left on device (2 never ran)" in ran.last_line
    assert not [word for word in ("Traceback", "INTERNALERROR") if word in ran.output]
