# SPDX-License-Identifier: MIT
"""What a repository tells the lab: plain data, its reader, and the files that it names.

It imports nothing of the lab but the errors and the host's programs.
"""

from __future__ import annotations

from .checks import check
from .model import Errata, Program, ProgramFormat, Project
from .reader import read
from .travel import Traveller, travellers

__all__ = [
    "Errata",
    "Program",
    "ProgramFormat",
    "Project",
    "Traveller",
    "check",
    "read",
    "travellers",
]
