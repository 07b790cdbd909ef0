# SPDX-License-Identifier: MIT
"""What a repository tells the lab: plain data, its reader, and the files that it names.

It imports nothing of the lab but the errors and the host's programs.
"""

from __future__ import annotations

from .checks import check
from .globs import matches_any
from .model import Errata, Program, ProgramFormat, Project
from .reader import find, here, read
from .starting import write_table
from .travel import Traveller, travellers, travels, weigh
from .workflow import write_workflow

__all__ = [
    "Errata",
    "Program",
    "ProgramFormat",
    "Project",
    "Traveller",
    "check",
    "find",
    "here",
    "matches_any",
    "read",
    "travellers",
    "travels",
    "weigh",
    "write_table",
    "write_workflow",
]
