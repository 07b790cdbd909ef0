# SPDX-License-Identifier: MIT
"""`lab kernels`: what there is to boot, its lock and its cache."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path
from typing import Any

from .. import project as projects
from ..errors import LabError, UsageError
from ..facts.kernel import BUILT, version_key
from ..kernels import built_here, known, lock, obtain, offered, resolve, store, upkeep
from ..kernels.choice import locked_now
from . import amount, build
from .log import told

INTERRUPTED = 130

EPILOG = """\
exit codes: 0 done; 1 verify found something that was not what was put there; 2 usage; 3 a source
did not answer, has not what was asked for, or could not be built; 130 interrupted."""


def add_parser(commands: Any) -> None:
    """Add `kernels` to the subparsers of `lab`."""
    parser = commands.add_parser(
        "kernels",
        help="list, lock, fetch and verify kernels",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(handler=run)
    actions = parser.add_subparsers(dest="action", required=True)
    listed = actions.add_parser("list", help="every kernel that can be booted, newest first")
    listed.add_argument("--locked", action="store_true", help="only those that are locked")
    listed.add_argument("--fresh", action="store_true", help="ask the sources again")
    update = actions.add_parser(
        "update", help="lock the newest release of each series (or of those named); shows the diff"
    )
    update.add_argument("series", nargs="*")
    update.add_argument(
        "--lock",
        type=Path,
        metavar="FILE",
        help="the lock to write, instead of the one that the repository's table names",
    )
    fetch = actions.add_parser("fetch", help="download, verify and unpack kernels")
    fetch.add_argument("name", nargs="+")
    build.add_parser(actions)
    actions.add_parser("verify", help="hash everything in the cache again; remove what differs")
    prune = actions.add_parser("prune", help="remove from the cache what was not used for long")
    prune.add_argument(
        "--days", type=float, default=30.0, metavar="N", help="not used for N days (30)"
    )
    prune.add_argument(
        "--gigabytes", type=float, metavar="N", help="and the longest unused beyond N GB"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run one action; the exit code."""
    with told():
        try:
            return int(_ACTIONS[arguments.action](arguments))
        except KeyboardInterrupt:
            return INTERRUPTED
        except LabError as error:
            print(f"lab: {error}", file=sys.stderr)
            return error.exit_code


def _list(arguments: argparse.Namespace) -> int:
    kernels = known() if arguments.locked else (*built_here(), *offered(fresh=arguments.fresh))
    cached = set(store.cached())
    for kernel in sorted(kernels, key=lambda one: version_key(one.upstream), reverse=True):
        state = "locked" if kernel.locked else BUILT if kernel.source == BUILT else "unlocked"
        here = "cached" if kernel.release in cached else ""
        print(
            f"{kernel.upstream:10} {kernel.package:22} {kernel.release:32} "
            f"{kernel.source:9} {state:9} {here}".rstrip()
        )
    return 0


def _update(arguments: argparse.Namespace) -> int:
    project = projects.here()
    place = arguments.lock or (project.path(project.lock) if project.lock else None)
    if place is None:
        raise UsageError(
            f"the table of {project.root} names no lock",
            hint="--lock FILE writes one, and lock = FILE in the table makes it bind",
        )
    lock.use(place if place.exists() else None)
    before = place.read_text() if place.exists() else ""
    # A lock that is new has the matrix.
    after = lock.render(locked_now(arguments.series or ([] if before else [*project.kernels])))
    if before == after:
        print("nothing has changed")
        return 0
    name = place.name
    sys.stdout.writelines(
        difflib.unified_diff(
            before.splitlines(keepends=True), after.splitlines(keepends=True), name, name
        )
    )
    place.write_text(after)
    lock.use(place)
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    for name in arguments.name:
        files = obtain(resolve(name))
        print(f"{files.kernel}  {files.vmlinux.parent}", flush=True)
    return 0


def _verify(_: argparse.Namespace) -> int:
    good = bad = 0
    sizes = {entry: entry.size() for entry in upkeep.entries()}
    with amount.shown("hashing", len(sizes), sum(sizes.values())) as step:

        def begun(entry: upkeep.Entry) -> None:
            step(f"{entry.kind} {entry.name}", sizes[entry])

        for entry, fault in upkeep.verify(sizes, begun):
            if fault:
                bad += 1
                print(f"{entry.kind} {entry.name}: {fault}; removed", flush=True)
            else:
                good += 1
    print(f"{good} as they were put there, {bad} not")
    return 1 if bad else 0


def _prune(arguments: argparse.Namespace) -> int:
    limit = arguments.gigabytes
    removed = 0
    for entry, size in upkeep.prune(
        older_than_s=arguments.days * upkeep.DAY_S,
        at_most=None if limit is None else int(limit * 1e9),
    ):
        removed += size
        print(f"{entry.kind} {entry.name}, {size / 1e6:.0f} MB", flush=True)
    print(f"removed {removed / 1e6:.0f} MB")
    return 0


_ACTIONS = {
    "list": _list,
    "update": _update,
    "fetch": _fetch,
    "build": build.run,
    "verify": _verify,
    "prune": _prune,
}
