# SPDX-License-Identifier: MIT
"""`lab plan`: the kernels of a matrix as JSON, for a workflow's jobs."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from .. import project as projects
from ..errors import LabError, UsageError
from ..kernels.planning import planned
from ..report.reconciliation import PLAN_VERSION


def add_parser(commands: Any) -> None:
    """Add `plan` to the subparsers of `lab`."""
    parser = commands.add_parser(
        "plan",
        help="print the kernels of a matrix of jobs as JSON",
        description="Tells from the table, the lock and the catalogue which kernels are to be "
        "tested; `check` holds the results against it. No archive is asked.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--kernel",
        action="append",
        metavar="NAME",
        help="instead of those of the table, or of the catalogue without a table; several names, "
        "patterns (6.1*) and all as for test; repeatable",
    )
    parser.add_argument(
        "--narrowed",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="WORD",
        help="the paths, -k and -m that every job is given; comes last",
    )
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Print it; the exit code."""
    notes: list[str] = []
    try:
        if arguments.kernel is not None and not any(name.strip() for name in arguments.kernel):
            raise UsageError("--kernel names no kernel")
        table = projects.here().kernels
        rows = [asdict(row) for row in planned(arguments.kernel or (), table=table, notes=notes)]
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return error.exit_code
    for note in notes:
        print(f"lab: {note}", file=sys.stderr)
    # One line: a workflow's outputs are lines.
    print(json.dumps({"version": PLAN_VERSION, "narrowed": arguments.narrowed, "legs": rows}))
    return 0
