# SPDX-License-Identifier: MIT
"""``python -m tests.lab.fuzz``: hostile guests at random for a while, or the one that is given.

    python -m tests.lab.fuzz --minutes 10
    python -m tests.lab.fuzz --seed 1 --examples 300
    python -m tests.lab.fuzz '{"outcomes": ["passed"], "guests": 1, "deeds": []}'

Exit status: 0 every invariant held; 1 one did not; 2 the line is no scenario; 3 too few scenarios
were tried to say so.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from .scenario import ScenarioError, parse
from .search import Seen, explore
from .trial import Stage, stage

BATCH = 200
ENOUGH = 50
AGAIN = 5
"""A scenario of two guests is tried so often: which of them is first is up to their threads."""


def _show(where: Stage, line: str) -> int:
    try:
        scenario = parse(line)
    except ScenarioError as error:
        print(error, file=sys.stderr)
        return 2
    for _ in range(AGAIN if scenario.guests > 1 else 1):
        if wrong := where.play(scenario):
            print("\n".join(wrong))
            return 1
    print("every invariant held")
    return 0


def _search(where: Stage, minutes: float, seed: int, examples: int | None) -> int:
    until = time.monotonic() + 60 * minutes
    seen = Seen()
    while time.monotonic() < until:
        found = explore(where, seed=seed, examples=examples or BATCH, until=until, seen=seen)
        if found is not None:
            print(f"seed {seed}, after {seen.runs} scenarios: an invariant does not hold:\n{found}")
            return 1
        print(f"seed {seed}: {seen.runs} scenarios, every invariant held", flush=True)
        if examples is not None:
            break
        seed += 1
    if seen.runs < (examples or ENOUGH) // 2:
        print(f"void: only {seen.runs} scenarios were tried", file=sys.stderr)
        return 3
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab.fuzz")
    parser.add_argument("scenario", nargs="?", help="a line that a search printed")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=None, help="the first seed of a search")
    parser.add_argument("--examples", type=int, default=None, help="one batch of so many, and end")
    options = parser.parse_args()
    with stage() as where:
        if options.scenario is not None:
            return _show(where, options.scenario)
        seed = random.randrange(1 << 32) if options.seed is None else options.seed
        return _search(where, options.minutes, seed, options.examples)


if __name__ == "__main__":
    sys.exit(main())
