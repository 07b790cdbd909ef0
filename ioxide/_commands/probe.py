# SPDX-License-Identifier: MIT
"""``python -m ioxide probe``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ioxide._probe.capabilities import probe
from ioxide._probe.mask import MaskError

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Subparsers) -> None:
    """Add the ``probe`` command."""
    parser = subparsers.add_parser(
        "probe",
        help="what this kernel's io_uring can do, with evidence",
        description=(
            "Try every capability of io_uring on the running kernel and print each as declared, "
            "accepted and observed. Exit status: 0 io_uring is usable, 1 it is not (and why), "
            "2 IOXIDE_CAPS, which takes capabilities away (-inc,-min_wait), is wrong."
        ),
    )
    parser.add_argument("--json", action="store_true", help="print the full report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Probe and print; 0 when io_uring is usable, 1 when not, 2 when IOXIDE_CAPS is wrong."""
    try:
        report = probe()
    except MaskError as error:
        print(f"ioxide: {error}", file=sys.stderr)
        return 2
    if report.error is not None:
        print(f"ioxide: {report.error}", file=sys.stderr)
        if args.json:
            print(report.to_json())
        return 1
    print(report.to_json() if args.json else report.table())
    return 0
