# SPDX-License-Identifier: MIT
"""What pytest's plugins leave in a guest's tree and belongs to the repository: it comes home when a
guest has run its last test.

A guest says which of these there are, because to ask for each costs seconds under emulation.
"""

from __future__ import annotations

import os
from pathlib import Path

COVERAGE = ".lab/coverage"
"""pytest-cov's data file."""
EXAMPLES = ".hypothesis/examples"
"""hypothesis's database, where a failing test finds the example again."""
KNOWN = (COVERAGE, EXAMPLES)


def left(root: Path) -> list[str]:
    """Which of them are here."""
    return [name for name in KNOWN if os.path.lexists(root / name)]
