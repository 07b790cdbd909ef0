# SPDX-License-Identifier: MIT
"""Brings home what tests left in a guest: hypothesis's examples, and what coverage measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from ..errors import GuestLost, LabError
from ..remote.process import TREE
from ..vm import Guest
from .left import COVERAGE, EXAMPLES

COVERAGE_FILE = "coverage.data"
"""Beside a guest's console."""
MOST_EXAMPLES = 8 << 20
"""hypothesis's database is sent to a guest if it has no more bytes than this."""


def bring(guest: Guest, names: Iterable[str], root: Path) -> list[str]:
    """Bring what a guest says that it has; sentences about what did not come.

    Examples go into the database at `root`, whose other examples stay. Raises GuestLost.
    """
    places = {COVERAGE: guest.console.with_name(COVERAGE_FILE), EXAMPLES: root / EXAMPLES}
    problems = []
    for name in names:
        if (place := places.get(name)) is None:
            continue
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            left_out = guest.pull(f"{TREE}/{name}", place).left_out
        except GuestLost:
            raise
        except (LabError, OSError, TimeoutError) as error:
            problems.append(f"{name} did not come home from the guest: {error}")
        else:
            problems += [f"{name} did not come home whole: {what}" for what in left_out[:1]]
    return problems


def examples(root: Path) -> Mapping[PurePosixPath, bytes]:
    """hypothesis's database at `root`, for a guest's tree: what failed is tried again there."""
    found = {}
    try:
        for path in sorted((root / EXAMPLES).rglob("*")):
            if path.is_file() and not path.is_symlink():
                found[PurePosixPath(path.relative_to(root).as_posix())] = path.read_bytes()
    except OSError:  # another run has just used one of them up
        return {}
    return found if sum(map(len, found.values())) <= MOST_EXAMPLES else {}
