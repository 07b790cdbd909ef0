# SPDX-License-Identifier: MIT
"""Did the kernel complain while this test ran?

The two lists are data files next to this module, and `tests/lab/dmesg_cases/` holds, for each
pattern, a log that must be found and, for the near misses, logs that must not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
MARK = "lab:"
EXCERPT_LINES = 60


@dataclass(frozen=True, slots=True)
class Splat:
    """A complaint of the kernel: its first line, and the log from there on."""

    line: str
    excerpt: str


@cache
def _patterns(name: str) -> tuple[re.Pattern[str], ...]:
    lines = (HERE / name).read_text().splitlines()
    return tuple(re.compile(line) for line in lines if line and not line.startswith("#"))


def denied() -> Sequence[re.Pattern[str]]:
    """What counts as a complaint."""
    return _patterns("dmesg_deny.txt")


def allowed() -> Sequence[re.Pattern[str]]:
    """What does not, although a pattern of `denied` finds it."""
    return _patterns("dmesg_allow.txt")


def is_mark(line: str) -> bool:
    """Whether the lab wrote this line itself; a test's name in it may say anything."""
    return re.match(rf"(<\d+>)?\s*(\[[ \d.]+\](\[[^\]]*\])?)?\s*{MARK} ", line) is not None


def scan(log: bytes) -> Splat | None:
    """The first complaint in a piece of kernel log, or None."""
    lines = [
        line for line in log.decode("utf-8", "backslashreplace").splitlines() if not is_mark(line)
    ]
    for number, line in enumerate(lines):
        if any(p.search(line) for p in denied()) and not any(p.search(line) for p in allowed()):
            excerpt = lines[number : number + EXCERPT_LINES]
            return Splat(line.strip(), "\n".join(excerpt))
    return None
