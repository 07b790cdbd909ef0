# SPDX-License-Identifier: MIT
"""virtme-ng as the launcher."""

from __future__ import annotations

import argparse

from lab.errors import LabError


def run(arguments: argparse.Namespace) -> int:
    """Run."""
    raise LabError(f"not yet: {arguments.launcher}")


def shell(arguments: argparse.Namespace) -> int:
    """Shell."""
    raise LabError(f"not yet: {arguments.launcher}")
