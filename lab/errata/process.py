# SPDX-License-Identifier: MIT
"""`lab test` as a process of its own, so that each of its runs begins and ends by itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

OUTPUT = "output.txt"
"""What such a run printed, in the directory of its results."""
_PACKAGE = __package__.partition(".")[0]
_END_S = 60.0


def lab_test(root: Path, results: Path, *words: str) -> dict[str, Any] | str:
    """Run it in the repository at `root`, on one kernel. What results.json says of that kernel, or
    the last line that was printed if it came to none.

    Its results and what it prints go to the directory `results`.
    """
    results.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", _PACKAGE, "test", f"--lab-results={results}", *words]
    setpriv = shutil.which("setpriv")
    if setpriv is not None:  # so that even a killed process leaves no run behind
        command = [setpriv, "--pdeathsig", "TERM", *command]
    with (results / OUTPUT).open("wb") as log:
        _run(command, root, log.fileno())
    path = results / "latest/results.json"
    if not path.exists():
        last = (results / OUTPUT).read_text(errors="replace").strip().splitlines()[-1:]
        return " ".join(last) or "it ended without a word"
    return leg_of(path)


def leg_of(path: Path) -> dict[str, Any]:
    """What the results.json of a run on one kernel says of it."""
    (leg,) = json.loads(path.read_text())["legs"].values()
    return dict(leg)


def _run(command: Sequence[str], root: Path, output: int) -> None:
    # The lab need not be installed: it runs from where this one is.
    ours = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH", "")]))
    process = subprocess.Popen(
        command,
        cwd=root,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
    )
    try:
        process.wait()
    except BaseException:
        # Ctrl-C reached it, too, if it came from a terminal. SIGTERM does the same in it, and is
        # not ignored where a shell started us in the background (SIGINT is).
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
