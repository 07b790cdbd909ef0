# SPDX-License-Identifier: MIT
"""What pytest's options and marks ask of a guest."""

from __future__ import annotations

import pytest

from ..wishes import KEYS, Wishes, from_options
from .stash import PROJECT


def wishes_of(config: pytest.Config) -> Wishes:
    """What the options ask of every guest, over what the table does. Raises UsageError."""
    given = {key: config.getoption(f"lab_{key}") for key in KEYS}
    return from_options(given, prefix="--lab-").over(config.stash[PROJECT].guest)
