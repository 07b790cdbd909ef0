# SPDX-License-Identifier: MIT
"""``python -m tests.mutants``: put bugs back and see the tests turn red.

Exits 0 when every mutant is red by the assertion meant for it, 1 when one is not, 2 for usage, 130
when interrupted.  With ``--kernel 6.12`` they are tried in a guest of the lab; a mutant whose tests
need what that kernel lacks is reported as absent there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.mutants.report import summary
from tests.mutants.table import HERE, TableError, load
from tests.mutants.trial import Limits, Trial
from tests.mutants.verdict import proved
from tests.mutants.workshop import Build, BuildError, Workshop, copy_tree


def _share(text: str) -> tuple[int, int]:
    number, slash, of = text.partition("/")
    if not slash or not number.isdecimal() or not of.isdecimal() or not 1 <= int(number) <= int(of):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with 1 <= I <= N, such as 2/4")
    return int(number), int(of)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description="Put bugs back and see the tests turn red."
    )
    parser.add_argument(
        "-k",
        dest="words",
        action="append",
        default=[],
        metavar="TEXT",
        help="only mutants with TEXT in their id, issue or file; may be repeated",
    )
    parser.add_argument("-j", dest="jobs", type=int, help="how many at a time (3; in guests 1)")
    parser.add_argument(
        "--limit",
        type=float,
        default=Limits().run,
        metavar="SECONDS",
        help=f"how long one mutant's tests may take altogether ({Limits().run:.0f})",
    )
    parser.add_argument(
        "--kernel",
        metavar="NAME",
        help="try them in guests with this kernel instead, each with its own (one at a time)",
    )
    parser.add_argument(
        "--share",
        type=_share,
        default=(1, 1),
        metavar="I/N",
        help="only the I-th of N shares of them: N runs, side by side or on other days, try all",
    )
    parser.add_argument("--list", action="store_true", help="list the mutants and end")
    parser.add_argument(
        "--root", type=Path, default=HERE.parents[1], help="the tree to copy (this one)"
    )
    parser.add_argument(
        "--table", type=Path, action="append", help="instead of tests/mutants/*.toml"
    )
    options = parser.parse_args(argv)
    if options.jobs is None:
        options.jobs = 1 if options.kernel else 3
    if options.jobs < 1:
        parser.error(f"-j must be at least 1, not {options.jobs}")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options = _arguments(argv)
    try:
        table = load(options.table).matching(options.words).share(*options.share)
    except TableError as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2
    if not table.mutants:
        what = f"matches {' or '.join(options.words)}" if options.words else "is in that share"
        print(f"mutants: nothing {what}; see --list", file=sys.stderr)
        return 2
    if options.list:
        for mutant in table.mutants:
            print(f"{mutant.breaks:10} {mutant.id:36} {mutant.what}")
        return 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ioxide-mutants-") as scratch:
        first = Path(scratch, "tree-0")
        try:
            copy_tree(options.root.resolve(), first)
            build = Build.of(first)
        except (OSError, subprocess.CalledProcessError, BuildError) as error:
            print(f"mutants: the tree cannot be copied and built: {error}", file=sys.stderr)
            return 1
        limits = Limits(run=options.limit)
        if options.kernel:
            from lab.errors import LabError
            from tests.mutants.guest import in_guests

            try:
                verdicts = in_guests(options.kernel, table, first, build, limits, options.jobs)
            except LabError as error:
                print(f"mutants: {error}", file=sys.stderr)
                return 1
        else:
            shops = [Workshop(first, build)]
            for number in range(1, min(options.jobs, len(table.mutants) + 1)):
                other = Path(scratch, f"tree-{number}")
                shutil.copytree(first, other, symlinks=True)
                shops.append(Workshop(other, build))
            verdicts = Trial(table, shops, limits=limits, release=os.uname().release).run()
    print(summary(verdicts, time.monotonic() - began), flush=True)
    return 0 if proved(verdicts) else 1


if __name__ == "__main__":
    # As Ctrl-C: what is being tried runs in sessions of its own and would outlive us.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        status = main()
    except KeyboardInterrupt:
        status = 130
        print("mutants: interrupted", file=sys.stderr)
    sys.exit(status)
