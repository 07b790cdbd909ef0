# SPDX-License-Identifier: MIT
"""Hooks the suite offers to other plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..facts.kernel import Kernel
    from .plan import Lab


@pytest.hookspec(firstresult=True)
def pytest_lab_resolve(config: pytest.Config, name: str) -> Kernel | None:
    """The kernel that `--lab-kernel NAME` means. Raises lab.errors.UsageError."""


@pytest.hookspec(firstresult=True)
def pytest_lab_guests(config: pytest.Config, kernel: Kernel) -> Lab | None:
    """Where guests of this kernel come from. The tests of the lab answer with hostile guests."""


@pytest.hookspec
def pytest_lab_hang() -> Iterable[tuple[str, str]]:  # type: ignore[empty-body]
    """Parts of the evidence of a test that hangs, each with its name: what only the repository
    knows. Called on the host from another thread while the test's waits, and in a guest from a
    signal's handler in the test's own."""
