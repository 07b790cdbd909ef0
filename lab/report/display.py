# SPDX-License-Identifier: MIT
"""Which way of showing a run suits where its output goes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from .progress import PlainProgress, Progress


def make_progress(write: Callable[[str], None], *, verbosity: int = 0) -> Progress:
    """The way that suits where stdout goes; `write` writes a plain line, `verbosity` is pytest's.

    A terminal that cannot be painted, a person who wants no colours (https://no-color.org), and CI,
    whose log would keep each picture, get plain lines.
    """
    dumb = os.environ.get("TERM", "dumb") in ("dumb", "unknown")
    if sys.stdout.isatty() and not dumb and not any(map(os.environ.get, ("CI", "NO_COLOR"))):
        from .screen import Screen  # and rich with it

        return Screen(sys.stdout, verbosity=verbosity)
    return PlainProgress(write)
