# SPDX-License-Identifier: MIT
"""Reproducers that would harm a machine whose kernel has their erratum run in guests only; and in
a guest each hears what its kernel says only once."""

from __future__ import annotations

import pytest

from ioxide._errata.every import REPRODUCERS
from tests.kernel_gated import debugfs

HARMFUL = {f"test_{one.run.__name__}" for one in REPRODUCERS.values() if one.harm}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take them out of a run on the machine itself, which then says how many were deselected."""
    if config.getoption("lab_guest") or config.getoption("lab_kernel"):
        return
    harmful = [item for item in items if item.name in HARMFUL]
    if harmful:
        config.hook.pytest_deselected(items=harmful)
        items[:] = [item for item in items if item not in harmful]


@pytest.fixture(autouse=True)
def _warns_again(request: pytest.FixtureRequest) -> None:
    """IOX-ERR-011 shows on 6.13.7 by nothing else than a complaint, which that of IOX-ERR-031 takes
    away."""
    if request.config.getoption("lab_guest"):
        debugfs.warn_again()
