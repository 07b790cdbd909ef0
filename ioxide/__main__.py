# SPDX-License-Identifier: MIT
"""``python -m ioxide COMMAND``.

A command is a module with ``add_parser(subparsers)``, which sets ``run`` as a default of its
parser, and ``run(args) -> int``, which returns the exit status.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ioxide._commands import errata, probe, record, serve

_READER_GONE = 128 + 13
_COMMANDS = (errata, probe, record, serve)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    2 for wrong usage, 141 where the reader of the output has gone, as of a program that SIGPIPE
    killed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m ioxide", description="An io_uring reactor for Python."
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(subparsers)
    args = parser.parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more at its end; there is nobody to write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_GONE
    return status


if __name__ == "__main__":
    sys.exit(main())
