# SPDX-License-Identifier: MIT
"""``python -m tests.others.psutil_suite``: psutil's own tests here and in guests, compared.

Exit status: 0 each test ends in a guest as on this machine, or its difference has its reason in
``differences.toml``; 1 a difference has none, or a reason no difference; 3 a run told nothing.
A test that fails on both sides ends as here, whatever it fails by.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/lab-psutil"
KNOWN = EXAMPLE / "differences.toml"
BECAUSE = ("network", "hardware", "time", "guest", "lab", "host")
"""What a difference may come from: `time` is that of emulation; `guest` is what its root image has
or has not, `lab` what the lab puts there, `host` what this machine has or has not."""
NOT_COLLECTED = "not collected"


@dataclass(frozen=True, slots=True)
class End:
    """How one test ended in a guest."""

    verdict: str
    why: str = ""
    """The reason of a verdict that is not passed."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Why some tests end otherwise in a guest."""

    tests: str
    """A pattern of their ids, as fnmatch knows it."""
    host: str
    guest: str
    because: str
    why: str
    said: str = ""
    """A regular expression that is found in the guest's reason; empty for any."""
    sometimes: bool = False
    """Whether it depends on what else this machine does, or has."""

    def about(self, name: str, host: str) -> bool:
        """Whether it is about this test, as it ended on this machine."""
        return self.host == host and fnmatchcase(name, self.tests)

    def explains(self, name: str, host: str, guest: End) -> bool:
        """Whether it is about this test's two ends."""
        same = self.guest == guest.verdict and re.search(self.said, guest.why) is not None
        return same and self.about(name, host)


def differences(path: Path) -> list[Difference]:
    """The reasons that are written down."""
    return [Difference(**one) for one in tomllib.loads(path.read_text()).get("difference", [])]


def faults(
    host: Mapping[str, str], guest: Mapping[str, End], known: Sequence[Difference]
) -> list[str]:
    """A sentence for each difference without a reason, and each reason without a difference."""
    found, used = [], set()
    for name in sorted(host.keys() | guest.keys()):
        here, there = host.get(name, NOT_COLLECTED), guest.get(name, End(NOT_COLLECTED))
        if here == there.verdict:
            continue
        reasons = [one for one in known if one.explains(name, here, there)]
        used.update(reasons)
        if not reasons:
            why = f": {there.why}" if there.why else ""
            found.append(f"{name} {here} on this machine and {there.verdict} in the guest{why}")
    for one in known:
        # Where this machine lacks what the reason is about, the test ends here as in the guest.
        meant = any(fnmatchcase(name, one.tests) for name in host)
        due = any(one.about(name, here) for name, here in host.items()) or not meant
        if due and one not in used and not one.sometimes:
            found.append(f"{one.tests} does not differ as differences.toml says: {one.why}")
    return found


def explained(
    host: Mapping[str, str], guest: Mapping[str, End], known: Sequence[Difference]
) -> Counter[str]:
    """How many differences come from what."""
    return Counter(
        next(one.because for one in known if one.explains(name, host[name], end))
        for name, end in guest.items()
        if name in host and any(one.explains(name, host[name], end) for one in known)
    )


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.others.psutil_suite", allow_abbrev=False)
    parser.add_argument("--kernel", action="append", metavar="NAME")
    arguments = parser.parse_args(argv)
    subprocess.run([EXAMPLE / "fetch", sys.executable], check=True)
    (tree,) = (EXAMPLE / "build").glob("psutil-*/")
    settings = tomllib.loads((EXAMPLE / "lab.toml").read_text())
    known, host = differences(KNOWN), _on_host(tree)
    if "passed" not in host.values():
        print("psutil's suite told nothing on this machine")
        return 3
    status = 0
    for kernel, guest in _in_guests(tree, arguments.kernel or settings["kernels"]).items():
        wrong = faults(host, guest, known)
        for sentence in wrong:
            print(f"{kernel}: {sentence}")
        same = sum(host.get(name) == end.verdict for name, end in guest.items())
        reasons = explained(host, guest, known)
        named = ", ".join(f"{count} by {what}" for what, count in sorted(reasons.items()))
        print(
            f"{kernel}: {same} of {len(guest)} tests end as here; "
            f"{sum(reasons.values())} differences have a reason ({named}), {len(wrong)} faults"
        )
        passed = any(end.verdict == "passed" for end in guest.values())
        status = max(status, (1 if wrong else 0) if passed else 3)
    return status


def _on_host(tree: Path) -> dict[str, str]:
    outcomes = EXAMPLE / "build/host.json"
    outcomes.unlink(missing_ok=True)
    # psutil's tests start its scripts by the Python behind the environment's link, which does not
    # know the environment; in a guest the lab's PYTHONPATH leads to the tree, too.
    path = os.pathsep.join((str(EXAMPLE), str(tree)))
    env = {**os.environ, "PYTHONPATH": path, "OUTCOMES": str(outcomes)}
    words = [str(tree.parent / "venv/bin/python"), "-m", "pytest", "-p", "outcomes", "-q"]
    subprocess.run(words, cwd=tree, env=env, check=False)
    found: dict[str, str] = json.loads(outcomes.read_text()) if outcomes.exists() else {}
    return found


def _in_guests(tree: Path, kernels: Sequence[str]) -> dict[str, dict[str, End]]:
    """How each test ended, kernel by kernel."""
    asked = [f"--kernel={kernel}" for kernel in kernels]
    subprocess.run([str(tree.parent / "venv/bin/lab"), "test", *asked], cwd=tree, check=False)
    results = json.loads((tree / "lab-results/latest/results.json").read_text())
    return {
        str(leg["asked"]): {
            name: End(str(one["verdict"]), str(one["why"])) for name, one in leg["verdicts"].items()
        }
        for leg in results["legs"].values()
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
