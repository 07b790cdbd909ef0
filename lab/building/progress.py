# SPDX-License-Identifier: MIT
"""How far a build is."""

from __future__ import annotations

import re
from typing import Protocol

COMPILED = re.compile(r"^\s*(?:HOST)?(?:CC|CXX|AS|RUSTC)\s+(?:\[M\]\s+)?(\S+)")
"""What kbuild prints of a file that is compiled, its `quiet_cmd_*` (6.12)."""


class Progress(Protocol):
    """Who is told how far a build is."""

    def said(self, sentence: str) -> None:
        """Something else is done now."""
        ...

    def compiled(self, count: int, name: str) -> None:
        """So many files have been compiled, this one last."""
        ...
