# SPDX-License-Identifier: MIT
"""`lab init`: the table that a repository begins with."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .. import project as projects
from ..errors import LabError


def add_parser(commands: Any) -> None:
    """Add `init` to the subparsers of `lab`."""
    parser = commands.add_parser(
        "init",
        help="write the lab's table for this repository",
        description="Writes [tool.lab] at the end of pyproject.toml, or a lab.toml for what is no "
        "Python project. Asks nothing, and changes nothing that is there.",
        allow_abbrev=False,
    )
    parser.set_defaults(handler=run)


def run(_: argparse.Namespace) -> int:
    """Write it; the exit code."""
    try:
        place, text = projects.write_table(projects.find(Path.cwd()))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{place}:\n\n{text}")
    return 0
