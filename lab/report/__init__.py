# SPDX-License-Identifier: MIT
"""How people see a run: while it runs, at its end, and in files."""

from __future__ import annotations

from .progress import PlainProgress, Progress, make_progress
from .summary import RunReport, render

__all__ = ["PlainProgress", "Progress", "RunReport", "make_progress", "render"]
