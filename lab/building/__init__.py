# SPDX-License-Identifier: MIT
"""Kernels from sources: a tree, a commit or a distribution's source package becomes a kernel of the
cache, see `lab.kernels.built`."""

from __future__ import annotations

from .build import Outcome, build
from .debian import DebianSource
from .git import GitCommit
from .kbuild import BuildFailed
from .options import add_options, order_of
from .order import Order
from .progress import Progress, Shown
from .sources import Sources
from .tree import DirectoryTree

__all__ = [
    "BuildFailed",
    "DebianSource",
    "DirectoryTree",
    "GitCommit",
    "Order",
    "Outcome",
    "Progress",
    "Shown",
    "Sources",
    "add_options",
    "build",
    "order_of",
]
