# SPDX-License-Identifier: MIT
"""`lab init`: the table that a repository begins with, and its workflow."""

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
    parser.add_argument(
        "--workflow",
        metavar="OWNER/NAME@COMMIT",
        help="also write a workflow for GitHub Actions, which takes the lab from this repository "
        "and commit; a table that is there stays",
    )
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Write it; the exit code."""
    try:
        root = projects.find(Path.cwd())
        written = []
        if arguments.workflow is not None:
            written.append(projects.write_workflow(root, arguments.workflow))
        if arguments.workflow is None or not projects.read(root).file:
            written.append(projects.write_table(root))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return error.exit_code
    for place, text in written:
        print(f"{place}:\n\n{text}")
    return 0
