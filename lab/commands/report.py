# SPDX-License-Identifier: MIT
"""`lab report`: the page of a run, or of several laid together."""

from __future__ import annotations

import argparse
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import project as projects
from ..errors import LabError, MissingTool, UsageError
from ..report import page

RESULTS = "lab-results/latest"


def add_parser(commands: Any) -> None:
    """Add `report` to the subparsers of `lab`."""
    parser = commands.add_parser(
        "report",
        help="make the page of a run",
        description="Makes report.html of a run's results.json and of the files beside it. Without "
        f"--run and --merge it is the newest run, {RESULTS}.",
        epilog="exit codes: 0 the page shows all that was asked for; 2 usage; 3 something of it "
        "cannot be read or believed, which is said.",
        allow_abbrev=False,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--run", type=Path, metavar="DIR", help="the directory of a run")
    which.add_argument(
        "--merge",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="directories with runs in them, as the jobs of a matrix leave them: one page of all",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="instead of report.html beside results.json, or here for --merge",
    )
    parser.add_argument("--open", action="store_true", help="show it in a browser")
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the page and say where it is; the exit code."""
    try:
        sources, complaints, file = _asked(arguments)
        _write(file, sources, complaints)
        for complaint in (*complaints, *(one.said for one in sources if one.said)):
            print(f"lab: {complaint}", file=sys.stderr)
        print(file)
        if arguments.open:
            _show(file)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return error.exit_code
    return 3 if complaints or any(one.said for one in sources) else 0


def _asked(arguments: argparse.Namespace) -> tuple[Sequence[page.Source], Sequence[str], Path]:
    """The runs, what is wrong with others, and where the page goes. Raises LabError."""
    if arguments.merge is not None:
        sources, complaints = page.gathered(arguments.merge)
        if not sources:
            raise LabError("; ".join(complaints))
        return sources, complaints, arguments.output or Path(page.FILE)
    place = arguments.run
    if place is None:
        place = projects.find(Path.cwd()) / RESULTS
        if not place.exists():
            raise UsageError(
                f"there is no run in {place.parent}", hint="name its directory with --run"
            )
    source = page.read(place)
    return [source], [], arguments.output or source.directory / page.FILE


def _write(file: Path, sources: Sequence[page.Source], complaints: Sequence[str]) -> None:
    try:
        page.write(file, sources, complaints)
    except ImportError as error:
        raise MissingTool(
            "the page needs jinja2, which is not installed", hint="pip install jinja2"
        ) from error
    except OSError as error:
        raise LabError(
            f"{file} cannot be written: {error.strerror}", hint="name another file with --output"
        ) from error


def _show(file: Path) -> None:
    try:
        shown = webbrowser.open(file.absolute().as_uri())
    except webbrowser.Error:
        shown = False
    if not shown:
        raise MissingTool(
            "no browser was found to show the page in",
            hint="open the file yourself, or name a browser in BROWSER",
        )
