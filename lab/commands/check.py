# SPDX-License-Identifier: MIT
"""`lab check`: holds the results of several runs against their plan."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import LabError, UsageError
from ..facts.verdicts import Conclusion, ExitCode
from ..report import reconciliation

EPILOG = """\
exit codes: 0 each kernel of the plan is proved; 1 one is disproved; 2 usage; 3 anything else:
missing, skipped, cancelled, empty, proved nothing."""


def add_parser(commands: Any) -> None:
    """Add `check` to the subparsers of `lab`."""
    parser = commands.add_parser(
        "check",
        help="hold the results of several runs against their plan",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("plan", type=Path, metavar="PLAN", help="what `plan` printed")
    parser.add_argument(
        "results",
        type=Path,
        nargs="*",
        metavar="RESULTS",
        help="results.json, or a directory with such files in it",
    )
    parser.add_argument(
        "--jobs",
        metavar="JSON",
        help="the results of the jobs before this one, as GitHub's toJSON(needs)",
    )
    parser.add_argument(
        "--summary", type=Path, metavar="FILE", help="append the result to it, as Markdown"
    )
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Reconcile and tell; the exit code."""
    try:
        jobs = None if arguments.jobs is None else _jobs(arguments.jobs)
        plan = reconciliation.read_plan(arguments.plan)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return error.exit_code
    found, complaints = reconciliation.gathered(arguments.results)
    complaints += reconciliation.reconcile(plan, found, jobs)
    for complaint in complaints:
        print(complaint)
    conclusion = reconciliation.concluded(plan, complaints)
    if arguments.summary is not None:
        try:
            with arguments.summary.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(reconciliation.markdown(plan, found, complaints))
        except OSError as error:
            why = f"the summary cannot be written to {arguments.summary}: {error.strerror}"
            if conclusion.code is ExitCode.PROVED:
                conclusion = Conclusion(ExitCode.NOT_PROVED, why)
            else:
                print(f"lab: {why}", file=sys.stderr)
    print(conclusion)
    return int(conclusion.code)


def _jobs(text: str) -> Mapping[str, Any]:
    try:
        jobs = json.loads(text)
    except RecursionError as error:
        raise UsageError("--jobs is nested too deeply") from error
    except ValueError as error:
        raise UsageError(f"--jobs is no JSON: {error}") from error
    if not isinstance(jobs, dict):
        raise UsageError("--jobs is no object of jobs by their names")
    return jobs
