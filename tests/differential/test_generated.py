# SPDX-License-Identifier: MIT
"""The short set: scenarios that hypothesis makes, always the same ones, for a bounded time."""

from __future__ import annotations

import time

from tests.differential.generated import explore
from tests.differential.pair import Pair

SECONDS = 30.0
ENOUGH = 25
"""Fewer scenarios than that prove nothing, on however slow a machine."""


def test_generated_scenarios_show_the_same(both: Pair) -> None:
    """No scenario of a fixed set shows a difference that is not listed."""
    began = time.monotonic()
    before = both.runs

    found = explore(both, seed=None, examples=400, until=began + SECONDS)

    assert found is None, str(found)
    assert both.runs - before >= ENOUGH, "too few scenarios ran to prove anything"
