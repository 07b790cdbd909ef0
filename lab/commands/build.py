# SPDX-License-Identifier: MIT
"""`lab kernels build`: a kernel from sources."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .. import building
from ..errors import COMMAND, UsageError
from ..kernels import obtain

HELP = "build a kernel from a tree, a commit or a distribution's source package"
DESCRIPTION = """\
Builds a kernel beside its sources, which are not written to, and puts it into the cache. The same
sources, configuration and compiler are built once; a build that was stopped goes on."""


def add_parser(actions: Any) -> None:
    """Add `build` to the actions of `lab kernels`."""
    parser = actions.add_parser("build", help=HELP, description=DESCRIPTION, allow_abbrev=False)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--tree", type=Path, metavar="DIR", help="a directory, as it is")
    which.add_argument("--git", metavar="URL-or-DIR", help="a repository, see --ref")
    which.add_argument(
        "--debian", metavar="PACKAGE", help="linux-source-6.12, or linux-source-6.12=VERSION"
    )
    parser.add_argument("--ref", metavar="REF", help="the tag, branch or commit of --git")
    building.add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Build; the exit code. Raises LabError and KeyboardInterrupt."""
    order = building.order_of(arguments)
    progress = building.Shown()
    try:
        outcome = building.build(_sources(arguments), order, progress)
        progress.end()
        files = obtain(outcome.kernel)
    except KeyboardInterrupt:
        progress.end()
        print("lab: interrupted; the same command goes on where this one stopped", file=sys.stderr)
        raise
    finally:
        progress.end()
    kernel = outcome.kernel
    how = "was built before" if outcome.there else f"{outcome.compiled} files compiled"
    print(f"lab: {how}; `{COMMAND} run --kernel {kernel.package}` boots it", file=sys.stderr)
    print(f"{kernel}  {files.vmlinux.parent}", flush=True)
    return 0


def _sources(arguments: argparse.Namespace) -> building.Sources:
    if arguments.git is None and arguments.ref is not None:
        raise UsageError("--ref goes with --git")
    if arguments.tree is not None:
        return building.DirectoryTree(arguments.tree)
    if arguments.debian is not None:
        return building.DebianSource(arguments.debian)
    if arguments.ref is None:
        raise UsageError("--git needs --ref", hint="a tag, a branch or a commit: --ref v6.12")
    return building.GitCommit(arguments.git, arguments.ref)
