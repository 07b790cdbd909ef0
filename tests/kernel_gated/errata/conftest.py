# SPDX-License-Identifier: MIT
"""Reproducers that would harm a machine whose kernel has their erratum run in guests only."""

from __future__ import annotations

import pytest

from ioxide._errata.every import REPRODUCERS

HARMFUL = {f"test_{one.run.__name__}" for one in REPRODUCERS.values() if one.harm}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take them out of a run on the machine itself, which then says how many were deselected."""
    if config.getoption("lab_guest") or config.getoption("lab_kernel"):
        return
    harmful = [item for item in items if item.name in HARMFUL]
    if harmful:
        config.hook.pytest_deselected(items=harmful)
        items[:] = [item for item in items if item not in harmful]
