# SPDX-License-Identifier: MIT
"""Which kernels the lab can boot, and how it gets and verifies them."""

from __future__ import annotations

from .model import Kernel, KernelFiles
from .resolve import known, obtain, resolve

__all__ = ["Kernel", "KernelFiles", "known", "obtain", "resolve"]
