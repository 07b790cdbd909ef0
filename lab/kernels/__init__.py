# SPDX-License-Identifier: MIT
"""Which kernels the lab can boot, and how it gets and verifies them."""

from __future__ import annotations

from ..facts.kernel import Flavour, Kernel
from .choice import built_here, known, obtain, offered, resolve
from .model import KernelFiles
from .patterns import ALL, matching, split

__all__ = [
    "ALL",
    "Flavour",
    "Kernel",
    "KernelFiles",
    "built_here",
    "known",
    "matching",
    "obtain",
    "offered",
    "resolve",
    "split",
]
