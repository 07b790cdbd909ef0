# SPDX-License-Identifier: MIT
"""``python -m tests.differential``: scenarios at random for a while, or the one that is given.

    python -m tests.differential --minutes 10
    python -m tests.differential --seed 17
    python -m tests.differential '{"steps":[["write",0,9],["close"]]}'

Exit status: 0 nothing differs but what is listed; 1 something does; 2 the line is no scenario;
3 too few scenarios ran to prove anything.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from tests.differential.generated import explore
from tests.differential.known import KNOWN, unknown
from tests.differential.pair import Pair, compare, pair
from tests.differential.scenario import ScenarioError, parse

BATCH = 60
ENOUGH = 25


def _show(both: Pair, line: str) -> int:
    """Run one scenario and print what both loops show."""
    try:
        scenario = parse(line)
    except ScenarioError as error:
        print(error, file=sys.stderr)
        return 2
    one, other = both.observe(scenario)
    print(f"asyncio: {one}\nioxide:  {other}")
    for each in compare(one, other):
        listed = [known.id for known in KNOWN if known.covers(scenario, each)]
        print(f"{'listed as ' + listed[0] if listed else 'not listed'}: {each}")
    differences = unknown(both, scenario)
    for each in differences:
        print(f"in 3 of 3 runs: {each}")
    return 1 if differences else 0


def _search(both: Pair, minutes: float, seed: int) -> int:
    """New scenarios, batch after batch, until one differs or the time is over."""
    deadline = time.monotonic() + 60 * minutes
    while time.monotonic() < deadline:
        found = explore(both, seed=seed, examples=BATCH, until=deadline)
        if found is not None:
            print(f"seed {seed}, after {both.runs} runs: {found}")
            return 1
        print(f"seed {seed}: {both.runs} runs, nothing", flush=True)
        seed += 1
    if both.runs < ENOUGH:
        print(f"void: only {both.runs} scenarios ran", file=sys.stderr)
        return 3
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential")
    parser.add_argument("scenario", nargs="?", help="a line that a search printed")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=None, help="the first seed of a search")
    options = parser.parse_args()
    if not options.minutes > 0:
        parser.error(f"--minutes {options.minutes:g}: must be more than 0")
    with pair() as both:
        if options.scenario is not None:
            return _show(both, options.scenario)
        seed = random.randrange(1 << 32) if options.seed is None else options.seed
        return _search(both, options.minutes, seed)


if __name__ == "__main__":
    sys.exit(main())
