# SPDX-License-Identifier: MIT
"""The live screen of a run with two real guests, in an emulated terminal."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.lab.suite_support import REPOSITORY
from tests.lab.terminal_support import BAR, GUEST, Terminal, guests_shown, squeezed

pytestmark = [pytest.mark.lab, pytest.mark.slow]

TESTS = """
import os, time
import pytest

@pytest.mark.parametrize("n", range(6))
def test_good(n): time.sleep(0.15)

def test_paints():
    print("\\x1b[2J\\x1b[10;10H\\x1b[?25l\\x1b[31mpainted\\x1b]0;title\\x07")
    time.sleep(0.3)
    raise AssertionError("\\x1b[2J\\x1b[1;1Hwiped away")

def test_dies():
    print("said last")
    os._exit(3)
"""
BAD = {"test_paints": "failed", "test_dies": "lost"}


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50)])
def test_two_real_guests_leave_no_garbage_and_no_line_is_lost(
    tmp_path: Path, columns: int, lines: int
) -> None:
    """From the first boot to the report: a bar and a line for each guest; above them each failure
    once; nothing of the screen is left behind it, and the report is whole."""
    (tmp_path / "lab.toml").write_text('kernels = ["6.12", "6.1"]\n')
    (tmp_path / "test_it.py").write_text(TESTS)
    told = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "TERM": "xterm-256color",
        "LC_ALL": "C.UTF-8",
    }
    # Nothing else knows the window's size.
    env = {k: v for k, v in told.items() if k not in ("CI", "COLUMNS", "LINES", "NO_COLOR")}
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, guests_shown(terminal))

    command = ("-m", "lab", "test", "--kernel", "6.12 6.1")
    with Terminal(command, cwd=str(tmp_path), env=env, columns=columns, lines=lines) as terminal:
        terminal.patience_s = 240.0
        code = terminal.end(look)
        text = terminal.all()

        assert 1 == code, "\n".join(text)
        assert 2 == most, "\n".join(text)
        assert not any(BAR.fullmatch(line) or GUEST.fullmatch(line) for line in text), text
        assert not terminal.screen.cursor.hidden
    together = squeezed(text)
    for kernel in (r"6\.12\.\d+", r"6\.1\.\d+"):
        for name, verdict in BAD.items():
            told_of = re.findall(rf"\[\d+/16\d+s\]{verdict}{kernel}test_it.py::{name}\(", together)
            assert 1 == len(told_of), (kernel, name, "\n".join(text))
    assert "\\x1b[2J\\x1b[1;1Hwipedaway" in together
    assert any(line.startswith("lab: exit 1 (disproved)") for line in text)
