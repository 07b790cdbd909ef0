# SPDX-License-Identifier: MIT
"""`lab probe`: what each kernel can do, by doing it in a guest.

Reports are kept as JSON in `probes/` of the cache, one per kernel and probe; `--diff` shows where
kernels differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from .. import cache, kernels
from .. import project as projects
from ..errors import LabError, UsageError
from ..facts.probed import Finding, Probed
from ..kernels import Kernel
from ..project import Project
from ..remote import probing, sending, tree
from ..remote.process import TREE
from ..vm import USUAL, launcher_named
from . import booting
from .log import told

INTERRUPTED = 130

EPILOG = """\
exit codes: 0 every kernel was probed; 2 usage; 3 a kernel could not be had or probed; 130
interrupted."""


def add_parser(commands: Any) -> None:
    """Add `probe` to the subparsers of `lab`."""
    parser = commands.add_parser(
        "probe",
        help="say what kernels can do, and where they differ",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--kernel", action="append", required=True, metavar="NAME", help="repeatable"
    )
    parser.add_argument("--diff", action="store_true", help="only what is not the same on all")
    parser.add_argument("--json", action="store_true", help="the reports as one JSON object")
    parser.add_argument("--fresh", action="store_true", help="probe again what was probed before")
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """Probe the kernels; the exit code."""
    with told():
        try:
            found = {}
            for name in arguments.kernel:
                kernel = kernels.resolve(name)
                found[kernel.upstream] = probed(kernel, fresh=arguments.fresh)
            if arguments.json:
                print(json.dumps({n: p.to_object() for n, p in found.items()}, indent=1))
            else:
                print(table(found, only_differences=arguments.diff))
        except KeyboardInterrupt:
            return INTERRUPTED
        except LabError as error:
            print(f"lab: {error}", file=sys.stderr)
            return error.exit_code
    return 0


def probed(kernel: Kernel, *, fresh: bool = False) -> Probed:
    """The kernel's probe, from the cache if this very probe has seen this very kernel. Raises
    LabError."""
    project = projects.here()
    if not project.probe:
        raise UsageError(
            f"there is no probe in the table of {project.root}",
            hint='probe = ["python", "-m", "PACKAGE.probe"] in [tool.lab] names one',
        )
    sent = sending.of(project)
    identity = repr([kernel.identity, project.probe, project.guest, sent.hashes()])
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    place = cache.root() / "probes" / f"{kernel.release}-{key}.json"
    if not fresh:
        try:
            return Probed.from_json(place.read_text())
        except (FileNotFoundError, ValueError):
            pass
    with tree.bytecode_kept(cache.bytecode_of(project.root)):
        tar = sent.pack(sent.bytecode())
    report = _in_guest(kernel, project, tar)
    with cache.locked("probes"), cache.scratch() as directory:
        made = directory / place.name
        made.write_text(json.dumps(report.to_object(), indent=1))
        cache.publish(made, place)
    return report


def _in_guest(kernel: Kernel, project: Project, tar: bytes) -> Probed:
    launcher = launcher_named(USUAL.name, project.environment_exclude)
    with booting.guest(kernel, launcher=launcher, wishes=project.guest) as guest:
        guest.push_tree(tar, TREE)
        return probing.probed(
            guest,
            sending.command(project.probe),
            environment={"PYTHONPATH": sending.search_path(project, TREE)},
        )


def table(found: Mapping[str, Probed], *, only_differences: bool) -> str:
    """Capability by kernel, then fact by kernel, as lines of text."""
    reports = list(found.values())
    seen = dict.fromkeys(name for report in reports for name in report.findings)
    told = dict.fromkeys(name for report in reports for name in report.facts)
    lists = [(name, [_cell(report.finding(name)) for report in reports]) for name in seen]
    lists += [(name, [report.facts.get(name, "unknown") for report in reports]) for name in told]
    rows = [["", *found]]
    same = 0
    for name, cells in lists:
        if only_differences and len(set(cells)) == 1:
            same += 1
            continue
        rows.append([name, *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [_line(row, widths) for row in rows]
    errors = [f"{name}: {report.error}" for name, report in found.items() if report.error]
    if only_differences:
        lines.append(f"the same on all: {same} of {len(lists)}")
    return "\n".join(lines + errors)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _cell(finding: Finding | None) -> str:
    """What was seen; in brackets what was only said or taken."""
    if finding is None:
        return "unknown"
    if finding.observed is not None:
        return "yes" if finding.observed else "no"
    if finding.accepted is not None:
        return "(accepted)" if finding.accepted else "(refused)"
    return "(declared)" if finding.declared else "?"
