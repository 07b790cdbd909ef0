# SPDX-License-Identifier: MIT
"""``python -m bench gate``, ``memory``, ``unread``, ``affinity`` or ``peers``.

Exits 0 when what is to hold holds, 1 when it does not, 2 for usage, 3 when the run proved nothing.
"""

from __future__ import annotations

import argparse
import sys

from bench import affinity, gate, memory, peers, unread
from bench.errors import Void


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(required=True)
    gated = commands.add_parser("gate", help="what a request may cost, in counts")
    gated.set_defaults(run=lambda _: gate.run())
    measured = commands.add_parser("memory", help="what loops and connections have resident")
    measured.set_defaults(run=lambda _: memory.run())
    paused = commands.add_parser("unread", help="a busy connection beside 10,000 that are paused")
    paused.set_defaults(run=lambda _: unread.run())
    for name, about, module in (
        ("affinity", "the continuation modes against each other", affinity),
        ("peers", "against asyncio's own loop and uvloop", peers),
    ):
        timed = commands.add_parser(name, help=about)
        timed.add_argument("--rounds", type=int, default=module.ROUNDS)
        timed.add_argument("--seconds", type=float, default=module.SECONDS)
        timed.add_argument("--print-only", action="store_true", help=f"leave docs/{name}.md alone")
        timed.set_defaults(
            run=lambda options, run=module.run: run(
                options.rounds, options.seconds, write=not options.print_only
            )
        )
    options = parser.parse_args()
    if getattr(options, "rounds", 3) < 3:
        parser.error(f"--rounds {options.rounds}: a median needs three")
    if getattr(options, "seconds", 1) <= 0:
        parser.error(f"--seconds {options.seconds:g}: must be more than 0")
    try:
        status: int = options.run(options)
    except Void as error:
        print(f"bench: void: {error}", file=sys.stderr)
        status = 3
    return status


if __name__ == "__main__":
    sys.exit(main())
