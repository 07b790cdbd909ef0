# SPDX-License-Identifier: MIT
"""``python -m ioxide record FILE``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ioxide._common import record

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Subparsers) -> None:
    """Add the ``record`` command."""
    parser = subparsers.add_parser(
        "record",
        help="read what IOXIDE_RECORD=DIR has saved of a ring",
        description=(
            "Print a saved record of a ring, a submission or completion a line, with its time "
            "before the last one. Exit status: 0, 1 the file cannot be read, and why."
        ),
    )
    parser.add_argument("file", metavar="FILE", type=Path)
    parser.add_argument(
        "--last", metavar="N", type=int, default=record.TOLD, help="how many (%(default)s); 0: all"
    )
    parser.add_argument(
        "--connection", metavar="NUMBER", type=int, help="only what is of that connection"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a record; 0, or 1 when it cannot be read."""
    if args.last < 0:
        print(f"ioxide: --last {args.last}: a number from 0 on", file=sys.stderr)
        return 2
    try:
        found, said = record.load(args.file)
    except (OSError, record.RecordError) as error:
        print(f"ioxide: {error}", file=sys.stderr)
        return 1
    if args.connection is not None:
        found = [
            one for one in found if one.kind in ("recv", "send") and one.slot == args.connection
        ]
    about = said.get("about")
    for name, value in about.items() if isinstance(about, dict) else ():
        print(f"{name}: {value}")
    print(f"kernel: {said.get('kernel')}")
    print(record.in_words(found, last=args.last or len(found) or 1))
    return 0
