# SPDX-License-Identifier: MIT
"""One test on one release, for the bisection: `lab test` as a process of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..facts.kernel import Kernel
from ..facts.verdicts import Verdict
from .bisect import Side, Tried
from .process import lab_test

_SIDES = {
    Verdict.PASSED: Side.GOOD,
    Verdict.FAILED: Side.BAD,
    Verdict.SPLAT: Side.BAD,
    Verdict.XFAILED: Side.BAD,
    Verdict.SURPRISE: Side.BAD,
}


@dataclass(frozen=True, slots=True)
class Trial:
    """Runs one test in guests; errata.toml's lists do not count, only what the test says."""

    node: str
    root: Path
    results: Path
    arguments: Sequence[str] = ()
    """More arguments for pytest."""

    def __call__(self, kernel: Kernel) -> Tried:
        """The test's side on this release. Raises UsageError when it is not one test."""
        where = self.results / kernel.package
        words = ("--kernel", kernel.package, "--lab-unlisted", "--lab-slow")
        said = lab_test(self.root, where, *words, *self.arguments, self.node)
        if isinstance(said, str):
            return Tried(Side.UNDECIDED, said)
        return read(said, self.node, kernel)


def read(leg: Mapping[str, Any], node: str, kernel: Kernel) -> Tried:
    """The side that a run tells. Raises UsageError when it ran not just one test."""
    if leg["kernel"] is None:
        return Tried(Side.UNDECIDED, str(leg["exit"]["why"]))
    if leg["kernel"]["package"] != kernel.package:
        return Tried(Side.UNDECIDED, f"{leg['kernel']['package']} was booted instead")
    verdicts = leg["verdicts"]
    if len(verdicts) != 1:
        raise UsageError(
            f"{node} is {len(verdicts)} tests on {kernel.package}",
            hint="bisect wants the node id of one: tests/...py::test_it",
        )
    (found,) = verdicts.values()
    verdict = Verdict(found["verdict"])
    why = f"{verdict}: {found['why']}" if found["why"] else str(verdict)
    return Tried(_SIDES.get(verdict, Side.UNDECIDED), why)
