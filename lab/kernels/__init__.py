# SPDX-License-Identifier: MIT
"""Which kernels the lab can boot, and how it gets and verifies them."""

from __future__ import annotations

from .model import Kernel, KernelFiles

__all__ = ["Kernel", "KernelFiles", "known", "obtain", "resolve"]


def resolve(name: str) -> Kernel:
    """The kernel meant by `name`: a series ("6.12" is its newest locked release), an upstream
    version, a package version or a `uname -r`. Raises UsageError listing the known ones."""
    raise NotImplementedError


def obtain(kernel: Kernel) -> KernelFiles:
    """The kernel's files, fetched and verified if need be. Raises KernelUnavailable."""
    raise NotImplementedError


def known() -> tuple[Kernel, ...]:
    """Every locked kernel, newest first."""
    raise NotImplementedError
