# SPDX-License-Identifier: MIT
"""``python -m ioxide COMMAND``.

A command is a module with ``add_parser(subparsers)``, which sets ``run`` as a default of its
parser, and ``run(args) -> int``, which returns the exit status.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ioxide import _errata_cli, _probe_cli, _serve

_COMMANDS = (_errata_cli, _probe_cli, _serve)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m ioxide", description="An io_uring reactor for Python."
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(subparsers)
    args = parser.parse_args(argv)
    status: int = args.run(args)
    return status


if __name__ == "__main__":
    sys.exit(main())
