# SPDX-License-Identifier: MIT
"""One test on one release, for the bisection: `lab test` as a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..facts.kernel import Kernel
from ..facts.verdicts import Verdict
from .bisect import Side, Tried

_SIDES = {
    Verdict.PASSED: Side.GOOD,
    Verdict.FAILED: Side.BAD,
    Verdict.SPLAT: Side.BAD,
    Verdict.XFAILED: Side.BAD,
    Verdict.SURPRISE: Side.BAD,
}
_END_S = 60.0


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
        where.mkdir(parents=True, exist_ok=True)
        command = [
            *(
                sys.executable,
                "-m",
                __package__.partition(".")[0],
                "test",
                "--kernel",
                kernel.package,
            ),
            *("--lab-unlisted", f"--lab-results={where}", "--lab-slow", *self.arguments, self.node),
        ]
        setpriv = shutil.which("setpriv")
        if setpriv is not None:  # so that even a killed bisection leaves no run behind
            command = [setpriv, "--pdeathsig", "TERM", *command]
        with (where / "output.txt").open("wb") as log:
            self._run(command, log.fileno())
        path = where / "latest/results.json"
        if not path.exists():
            last = (where / "output.txt").read_text(errors="replace").strip().splitlines()[-1:]
            return Tried(Side.UNDECIDED, " ".join(last))
        return read(path, self.node, kernel)

    def _run(self, command: Sequence[str], output: int) -> None:
        process = subprocess.Popen(
            command, cwd=self.root, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            process.wait()
        except BaseException:
            # Ctrl-C reached it, too, if it came from a terminal. SIGTERM does the same in it, and
            # is not ignored where a shell started us in the background (SIGINT is).
            process.terminate()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise


def read(path: Path, node: str, kernel: Kernel) -> Tried:
    """The side that a run's results.json tells. Raises UsageError when it ran not just one test."""
    (leg,) = json.loads(path.read_text())["legs"].values()
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
