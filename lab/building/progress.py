# SPDX-License-Identifier: MIT
"""How far a build is, for whoever asked for it."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import Protocol

COMPILED = re.compile(r"^\s*(?:HOST)?(?:CC|CXX|AS|RUSTC)\s+(?:\[M\]\s+)?(\S+)")
"""What kbuild prints of a file that is compiled, its `quiet_cmd_*` (6.12)."""

SILENCE_S = 5.0
"""Without a terminal, how long nothing is said."""


class Progress(Protocol):
    """Who is told how far a build is."""

    def said(self, sentence: str) -> None:
        """Something else is done now."""
        ...

    def compiled(self, count: int, name: str) -> None:
        """So many files have been compiled, this one last."""
        ...


class Shown:
    """Says on standard error how far a build is: on a terminal in one line, elsewhere in a few."""

    def __init__(self) -> None:
        terminal = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._every_s = 0.1 if terminal else SILENCE_S
        self._terminal, self._last, self._begun = terminal, 0.0, time.monotonic()
        self._open = False

    def said(self, sentence: str) -> None:
        """See `Progress`."""
        self.end()
        print(f"lab: {sentence}", file=sys.stderr, flush=True)

    def compiled(self, count: int, name: str) -> None:
        """See `Progress`."""
        now = time.monotonic()
        if now - self._last < self._every_s:
            return
        self._last = now
        text = f"lab: {count} files compiled in {now - self._begun:.0f} s, {name}"
        if self._terminal:
            self._open = True
            print(f"\r\x1b[K{text[: _width()]}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        """End the line of a terminal."""
        if self._open:
            self._open = False
            print(file=sys.stderr, flush=True)


def _width() -> int:
    try:
        return max(20, os.get_terminal_size(sys.stderr.fileno()).columns - 1)
    except OSError:
        return 79
