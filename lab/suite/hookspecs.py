# SPDX-License-Identifier: MIT
"""Hooks the suite offers to other plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..facts.kernel import Kernel
    from .plan import Lab


@pytest.hookspec(firstresult=True)
def pytest_lab_resolve(config: pytest.Config, name: str) -> Kernel | None:
    """The kernel that `--lab-kernel NAME` means. Raises lab.errors.UsageError."""


@pytest.hookspec(firstresult=True)
def pytest_lab_guests(config: pytest.Config, kernel: Kernel) -> Lab | None:
    """Where guests of this kernel come from. The tests of the lab answer with hostile guests."""
