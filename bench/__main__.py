# SPDX-License-Identifier: MIT
"""``python -m bench gate`` or ``affinity``.

Exits 0 when what is to hold holds, 1 when it does not, 2 for usage, 3 when the run proved nothing.
"""

from __future__ import annotations

import argparse
import sys

from bench import affinity, gate
from bench.errors import Void


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(required=True)
    gated = commands.add_parser("gate", help="what a request may cost, in counts")
    gated.set_defaults(run=lambda _: gate.run())
    modes = commands.add_parser("affinity", help="the continuation modes against each other")
    modes.add_argument("--rounds", type=int, default=affinity.ROUNDS)
    modes.add_argument("--seconds", type=float, default=affinity.SECONDS)
    modes.add_argument("--print-only", action="store_true", help="leave docs/affinity.md alone")
    modes.set_defaults(
        run=lambda options: affinity.run(
            options.rounds, options.seconds, write=not options.print_only
        )
    )
    options = parser.parse_args()
    try:
        status: int = options.run(options)
    except Void as error:
        print(f"bench: void: {error}", file=sys.stderr)
        status = 3
    return status


if __name__ == "__main__":
    sys.exit(main())
