# SPDX-License-Identifier: MIT
"""``python -m tests.mutants``: put bugs back and see the tests turn red.

Exits 0 when every mutant is red by the assertion meant for it, 1 when one is not, 2 for usage, 130
when interrupted.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.report import line, summary
from tests.mutants.table import HERE, Mutant, Stale, Table, TableError, load
from tests.mutants.verdict import Kind, Verdict, judge
from tests.mutants.workshop import Build, BuildError, Run, Workshop, copy_tree

WAIT = 5.0
"""Seconds a test waits for something before it fails; what is tried takes milliseconds."""
EACH = 20.0
LIMIT = 90.0


class Trial:
    """All mutants of a table, tried in a few workshops at a time."""

    def __init__(self, table: Table, shops: Sequence[Workshop], *, limit: float) -> None:
        self._table = table
        self._limit = limit
        self._idle: SimpleQueue[Workshop] = SimpleQueue()
        for shop in shops:
            self._idle.put(shop)
        self._shops = tuple(shops)
        self._done = 0
        self._lock = threading.Lock()

    def run(self) -> list[Verdict]:
        """Judge every mutant, in the table's order."""
        with ThreadPoolExecutor(len(self._shops)) as pool:
            try:
                baseline = pool.submit(self._baseline)
                verdicts = list(pool.map(self._try, self._table.mutants))
                untouched = baseline.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for shop in self._shops:
                    shop.stop()
                raise
        return [self._held_against(verdict, untouched) for verdict in verdicts]

    def _baseline(self) -> Run:
        """Everything that is named must be green in the tree as it is, or red means nothing."""
        shop = self._idle.get()
        try:
            nodes = self._table.tests()
            return shop.run(nodes, limit=LIMIT + 5 * len(nodes), wait=WAIT, each=EACH)
        finally:
            self._idle.put(shop)

    def _try(self, mutant: Mutant) -> Verdict:
        shop = self._idle.get()
        try:
            verdict = self._judge(shop, mutant)
        finally:
            self._idle.put(shop)
        with self._lock:
            self._done += 1
            print(line(verdict, self._done, len(self._table.mutants)), flush=True)
        return verdict

    def _judge(self, shop: Workshop, mutant: Mutant) -> Verdict:
        controls = self._table.controls_of(mutant)
        try:
            with shop.spoilt(mutant):
                run = shop.run((*controls, *mutant.red), limit=self._limit, wait=WAIT, each=EACH)
        except Stale as error:
            return Verdict(mutant, Kind.STALE, str(error))
        except BuildError as error:
            return Verdict(mutant, Kind.NO_BUILD, "see below", detail=str(error))
        return judge(mutant, controls, run)

    def _held_against(self, verdict: Verdict, untouched: Run) -> Verdict:
        for node in (*self._table.controls_of(verdict.mutant), *verdict.mutant.red):
            outcome = untouched.of(node)
            if not outcome.passed:
                reason = f"{node} is not green in the tree as it is: {outcome.message or 'lost'}"
                detail = outcome.text or untouched.output
                return Verdict(verdict.mutant, Kind.NOT_GREEN, reason, verdict.seen, 0.0, detail)
        return verdict


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
    parser.add_argument("-j", dest="jobs", type=int, default=3, help="how many at a time (3)")
    parser.add_argument(
        "--limit",
        type=float,
        default=LIMIT,
        metavar="SECONDS",
        help=f"how long one mutant's tests may take altogether ({LIMIT:.0f})",
    )
    parser.add_argument("--list", action="store_true", help="list the mutants and end")
    parser.add_argument(
        "--root", type=Path, default=HERE.parents[1], help="the tree to copy (this one)"
    )
    parser.add_argument(
        "--table", type=Path, action="append", help="instead of tests/mutants/*.toml"
    )
    options = parser.parse_args(argv)
    if options.jobs < 1:
        parser.error(f"-j must be at least 1, not {options.jobs}")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options = _arguments(argv)
    try:
        table = load(options.table).matching(options.words)
    except TableError as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2
    if not table.mutants:
        print(f"mutants: nothing matches {' or '.join(options.words)}; see --list", file=sys.stderr)
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
        shops = [Workshop(first, build)]
        for number in range(1, min(options.jobs, len(table.mutants) + 1)):
            other = Path(scratch, f"tree-{number}")
            shutil.copytree(first, other, symlinks=True)
            shops.append(Workshop(other, build))
        verdicts = Trial(table, shops, limit=options.limit).run()
    print(summary(verdicts, time.monotonic() - began), flush=True)
    return 0 if all(verdict.good for verdict in verdicts) else 1


if __name__ == "__main__":
    # As Ctrl-C: what is being tried runs in sessions of its own and would outlive us.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        status = main()
    except KeyboardInterrupt:
        status = 130
        print("mutants: interrupted", file=sys.stderr)
    sys.exit(status)
