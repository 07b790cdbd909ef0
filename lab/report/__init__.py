# SPDX-License-Identifier: MIT
"""How people see a run: while it runs, at its end, and in files."""

from __future__ import annotations

from .display import make_progress
from .progress import PlainProgress, Progress
from .summary import RunReport, render

__all__ = ["PlainProgress", "Progress", "RunReport", "make_progress", "render"]
