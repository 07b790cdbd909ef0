# SPDX-License-Identifier: MIT
"""python -m lab.kernels list | update [SERIES...] | fetch NAME..."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from lab.errors import LabError

from . import known, lock, obtain, resolve
from .choice import locked_now


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m lab.kernels", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the locked kernels")
    update = commands.add_parser("update", help="lock the newest release of each series")
    update.add_argument("series", nargs="*")
    fetch = commands.add_parser("fetch", help="download, verify and unpack kernels")
    fetch.add_argument("name", nargs="+")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        if options.command == "list":
            for kernel in known():
                print(f"{kernel.series:6} {kernel}  [{kernel.source}]")
        elif options.command == "update":
            lock.LOCK.write_text(lock.render(locked_now(options.series)))
        else:
            for name in options.name:
                files = obtain(resolve(name))
                print(f"{files.kernel}  {files.vmlinux.parent}")
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
