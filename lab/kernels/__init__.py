# SPDX-License-Identifier: MIT
"""Which kernels the lab can boot, and how it gets and verifies them."""

from __future__ import annotations

from .choice import known, obtain, resolve
from .model import Kernel, KernelFiles

__all__ = ["Kernel", "KernelFiles", "known", "obtain", "resolve"]
