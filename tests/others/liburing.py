# SPDX-License-Identifier: MIT
"""``python -m tests.others.liburing``: liburing's own test programs in the lab.

Without options it measures each program on every kernel of the example's table, on 6.12 also under
liburing's own runner, and writes docs/liburing.md. ``--kernel`` names one kernel; what was measured
on the others stays. ``--named`` runs only the programs of ``named.txt``, on 6.12, and writes
nothing.

Exit status: 0 everything has a verdict, and what differs has its reason; 1 a named program did not
pass, or a difference has no reason; 3 not everything has a verdict.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.others import measured as book
from tests.others import page

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/lab-liburing"
PAGE = ROOT / "docs/liburing.md"
KNOWN, MEASURED = EXAMPLE / "differences.toml", EXAMPLE / "measured.json"
USUAL = "6.12"
"""Where CI runs the named programs, and where liburing's own runner is compared."""


def named() -> list[str]:
    """The programs that CI runs."""
    lines = (EXAMPLE / "named.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def kernels() -> list[str]:
    """Those of the example's table."""
    return list(tomllib.loads((EXAMPLE / "lab.toml").read_text())["kernels"])


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.others.liburing", allow_abbrev=False)
    parser.add_argument("--named", action="store_true")
    parser.add_argument("--kernel", action="append", metavar="NAME")
    parser.add_argument(
        "--results",
        action="append",
        type=Path,
        metavar="FILE",
        default=[],
        help="take this results.json of a run of the lab instead of running it; repeatable",
    )
    arguments = parser.parse_args(argv)
    if arguments.named:
        return _named()
    found = [leg for file in arguments.results for leg in legs(file)]
    if not found:
        subprocess.run([EXAMPLE / "fetch"], check=True)
        for kernel in arguments.kernel or kernels():
            tables = (book.ALONE, book.RUNTESTS) if kernel == USUAL else (book.ALONE,)
            found.append(_in_guest(kernel, *tables))
    today = f"{datetime.now(UTC):%-d %B %Y}"
    kept = {one.release: one for one in book.load(MEASURED)}
    for results in found:
        one = book.of_results(results, today)
        kept[one.release] = one
    rows, known = book.in_order(list(kept.values())), page.differences(KNOWN)
    book.save(MEASURED, rows)
    PAGE.write_text(page.render(rows, known, of=len(kernels())))
    wrong = page.faults(rows, known)
    for sentence in wrong:
        print(sentence)
    print(f"{len(rows)} kernels in {PAGE.relative_to(ROOT)}, {len(wrong)} faults")
    if any(sentence.endswith("no verdict") for sentence in wrong):
        return 3
    return 1 if wrong else 0


def _named() -> int:
    names = named()
    subprocess.run([EXAMPLE / "fetch", *names], check=True)
    verdicts = _in_guest(USUAL, *(f"{book.ALONE}/{name}" for name in names))["verdicts"]
    wrong = not_passed(names, verdicts)
    for sentence in wrong:
        print(sentence)
    print(f"liburing: {len(names) - len(wrong)} passed, {len(wrong)} failed")
    return 1 if wrong else 0


def not_passed(names: Sequence[str], verdicts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each of these programs that did not pass."""
    absent = {"verdict": "never ran", "why": "it was not in the run"}
    found = {name: verdicts.get(f"{book.ALONE}/{name}", absent) for name in names}
    return [
        f"{name}: {one['verdict']}: {one['why']}"
        for name, one in found.items()
        if one["verdict"] != "passed"
    ]


def _in_guest(kernel: str, *names: str) -> dict[str, Any]:
    """Run the lab as anybody would, in the example's directory; what results.json says."""
    # In one guest, so that the second run of a program finds what the first one found.
    words = [sys.executable, "-m", "lab", "test", "--kernel", kernel, "--lab-guests", "1", *names]
    subprocess.run(words, cwd=EXAMPLE, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    (leg,) = legs(EXAMPLE / "lab-results/latest/results.json")
    return leg


def legs(results: Path) -> list[dict[str, Any]]:
    """What a results.json says, kernel by kernel."""
    return list(json.loads(results.read_text())["legs"].values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
