# SPDX-License-Identifier: MIT
"""docs/capabilities.md says of each capability what the contract says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ioxide import Capability
from lab import project
from lab.rules import contract

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/capabilities.md").read_text()
ROWS = dict(re.findall(r"(?m)^\| `([A-Z_]+)` \| (\d+\.\d+|debug) \| \S.* \|$", PAGE))


def test_each_capability_has_its_row() -> None:
    """In the order of the probe's table."""
    assert [*Capability] == [*ROWS]


@pytest.mark.parametrize("capability", list(Capability))
def test_since_is_the_first_series_that_has_it(capability: Capability) -> None:
    """Its column holds the lowest series with a promise."""
    found = contract.of(project.read(ROOT))
    rows = found.rows
    if capability in found.debug:
        assert ("debug", True) == (ROWS[capability], found.debug[capability].present)
        return
    series = [line for line in rows if line == contract.series_of_release(line)]
    has = [line for line in series if rows[line][capability].present]
    assert ROWS[capability] == has[0]


def test_stable_releases_are_those_of_the_contract() -> None:
    """Each line about a release is told, and none else."""
    rows = contract.of(project.read(ROOT)).rows
    releases = [line for line in rows if line != contract.series_of_release(line)]
    told = re.findall(r"(\d+\.\d+\.\d+) has it and", PAGE)
    assert sorted(releases) == sorted(told)
