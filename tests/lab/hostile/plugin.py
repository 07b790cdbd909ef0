# SPDX-License-Identifier: MIT
"""Gives `lab test` fake guests: `-p tests.lab.hostile.plugin`, misdeeds as JSON in LAB_FAKE, or in
LAB_FAKE_6_1 for the guests of 6.1 alone."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import pytest

from lab.errors import KernelUnavailable, UsageError
from lab.kernels import Kernel

from .fake import FakeLab, Misdeeds


@pytest.hookimpl(tryfirst=True)
def pytest_lab_resolve(name: str) -> Kernel:
    """Two kernels are known, 6.12 and 6.1, also by their packages, and whatever a path names is a
    6.10.0 of one's own. All call themselves what the host calls itself."""
    if "/" in name:
        own = hashlib.sha256(name.encode()).hexdigest()
        return Kernel(
            series="6.10",
            upstream="6.10.0",
            package=f"local-{own[:12]}",
            release=os.uname().release,
            source="local",
            locked=False,
            verified_by=f"sha256 0 of {name}",
        )
    if name == "6.10":
        raise KernelUnavailable("no source has 6.10: tried fake; cached: nothing")
    name = name.removesuffix("-1")
    if name not in ("6.12", "6.12.107", "6.1", "6.1.176"):
        raise UsageError(f"unknown kernel {name!r}", hint="known: 6.12.107")
    old = name in ("6.1", "6.1.176")
    series, upstream = ("6.1", "6.1.176") if old else ("6.12", "6.12.107")
    return Kernel(
        series=series,
        upstream=upstream,
        package=f"{upstream}-1",
        release=os.uname().release,
        source="fake",
        locked=True,
        verified_by="nobody",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_lab_guests(kernel: Kernel) -> Any:
    """Fake guests."""
    own = f"LAB_FAKE_{kernel.series.replace('.', '_')}"
    told = os.environ.get(own) or os.environ.get("LAB_FAKE", "{}")
    return FakeLab(kernel, Misdeeds(**json.loads(told)))
