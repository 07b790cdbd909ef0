# SPDX-License-Identifier: MIT
"""Kernels from sources: a tree, a commit or a distribution's source package becomes a kernel of the
cache, see `lab.kernels.built`."""

from __future__ import annotations

from .build import Outcome, build
from .debian import DebianSource
from .git import GitCommit
from .order import BASES, CLOUD, DEFCONFIG, Order, setting
from .progress import Progress
from .sources import Sources
from .tree import DirectoryTree

__all__ = [
    "BASES",
    "CLOUD",
    "DEFCONFIG",
    "DebianSource",
    "DirectoryTree",
    "GitCommit",
    "Order",
    "Outcome",
    "Progress",
    "Sources",
    "build",
    "setting",
]
