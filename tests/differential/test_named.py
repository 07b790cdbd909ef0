# SPDX-License-Identifier: MIT
"""Scenarios with a name give on ioxide what they give on asyncio, but for what is listed."""

from __future__ import annotations

import pytest

from tests.differential.known import KNOWN, Known, unknown
from tests.differential.named import NAMED
from tests.differential.pair import Pair


@pytest.mark.parametrize("name", NAMED)
def test_both_loops_show_the_same(both: Pair, name: str) -> None:
    """Nothing differs that no entry of `known` explains."""
    scenario = NAMED[name]

    differences = unknown(both, scenario)

    assert not differences, "\n".join(
        ("the loops differ:", *map(str, differences), scenario.line())
    )


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.id)
def test_what_is_listed_is_still_there(both: Pair, known: Known) -> None:
    """Each scenario of an entry shows its difference; otherwise the entry is stale."""
    for name in known.shows:
        scenario = NAMED[name]

        seen = any(known.covers(scenario, each) for each in both.differences(scenario))

        assert seen, (
            f"stale: {known.id} in tests/differential/known.py is not seen any more in {name!r}. "
            "Remove the entry, or this name from its `shows`; the scenario stays in named.py and "
            "guards what was mended."
        )
