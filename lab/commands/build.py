# SPDX-License-Identifier: MIT
"""`lab kernels build`: a kernel from sources."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from .. import building
from ..errors import COMMAND, UsageError
from ..kernels import obtain

SILENCE_S = 5.0
"""Without a terminal, how long nothing is said."""
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
    parser.add_argument(
        "--base",
        choices=building.BASES,
        default=building.DEFCONFIG,
        help="the configuration to begin with; cloud: Debian's of the nearest series (defconfig)",
    )
    parser.add_argument(
        "--flavour", choices=("debug",), help="a kernel that looks for bugs in itself, and is slow"
    )
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="SYMBOL=VALUE",
        help="of the configuration; repeatable",
    )
    parser.add_argument(
        "--debug-info", action="store_true", help="with debug information, in vmlinux.debug"
    )
    parser.add_argument(
        "--jobs",
        type=_jobs,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="compilers at once (one for each processor)",
    )


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1024")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Build; the exit code. Raises LabError and KeyboardInterrupt."""
    order = building.Order(
        base=arguments.base,
        debug=arguments.flavour == "debug",
        debug_info=arguments.debug_info,
        settings=dict(map(building.setting, arguments.settings)),
        jobs=arguments.jobs,
    )
    progress = Shown()
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


class Shown:
    """Says on standard error how far a build is: on a terminal in one line, elsewhere in a few."""

    def __init__(self) -> None:
        terminal = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._every_s = 0.1 if terminal else SILENCE_S
        self._terminal, self._last, self._begun = terminal, 0.0, time.monotonic()
        self._open = False

    def said(self, sentence: str) -> None:
        """See `building.Progress`."""
        self.end()
        print(f"lab: {sentence}", file=sys.stderr, flush=True)

    def compiled(self, count: int, name: str) -> None:
        """See `building.Progress`."""
        now = time.monotonic()
        if now - self._last < self._every_s:
            return
        self._last = now
        text = f"lab: {count} files compiled in {now - self._begun:.0f} s, {name}"
        if self._terminal:
            self._open = True
            print(f"\r\x1b[K{text[: _width()]}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        """End the line of a terminal."""
        if self._open:
            self._open = False
            print(file=sys.stderr, flush=True)


def _width() -> int:
    try:
        return max(20, os.get_terminal_size(sys.stderr.fileno()).columns - 1)
    except OSError:
        return 79
