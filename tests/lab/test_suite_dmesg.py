# SPDX-License-Identifier: MIT
"""The gate that reads the kernel's log finds complaints, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.suite import dmesg

pytestmark = pytest.mark.lab

CASES = Path(__file__).with_name("dmesg_cases")
SPLATS = sorted((CASES / "splat").iterdir())
CLEAN = sorted((CASES / "clean").iterdir())


@pytest.mark.parametrize("path", SPLATS, ids=lambda path: path.stem)
def test_complaint_is_found(path: Path) -> None:
    """Each recorded complaint of a kernel is found, and its excerpt starts with its line."""
    splat = dmesg.scan(path.read_bytes())

    assert splat is not None
    assert splat.excerpt.splitlines()[0].strip() == splat.line


@pytest.mark.parametrize("path", CLEAN, ids=lambda path: path.stem)
def test_ordinary_log_is_clean(path: Path) -> None:
    """What only looks like a complaint is not one."""
    assert dmesg.scan(path.read_bytes()) is None


def test_every_pattern_has_a_case() -> None:
    """A pattern that no recorded log needs could be misspelt without anybody noticing."""
    splats = "\n".join(path.read_text() for path in SPLATS)
    # An exception is needed only for a line that would be found without it.
    near = [
        line
        for path in CLEAN
        for line in path.read_text().splitlines()
        if any(p.search(line) for p in dmesg.denied())
    ]

    assert [] == [p.pattern for p in dmesg.denied() if not p.search(splats)]
    assert [] == [p.pattern for p in dmesg.allowed() if not any(map(p.search, near))]


def test_log_that_is_no_text_is_read_all_the_same() -> None:
    """Bytes that are no UTF-8 do not hide the complaint after them."""
    splat = dmesg.scan(b"[ 1.0] \xff\xfe\x00\n[ 1.1] UBSAN: shift-out-of-bounds in x.c:1:1\n")

    assert splat is not None
