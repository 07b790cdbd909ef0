# SPDX-License-Identifier: MIT
"""``python -m bench gate``, ``memory``, ``unread``, ``affinity`` or ``peers``.

Exits 0 when what is to hold holds, 1 when it does not, 2 for usage, 3 when the run proved nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import affinity, gate, memory, peers, unread
from bench.errors import Void
from bench.scenes import SCENES


def _timed(parser: argparse.ArgumentParser, name: str, rounds: int, seconds: float) -> None:
    """The options of what measures time, round by round."""
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seconds", type=float, default=seconds)
    parser.add_argument("--print-only", action="store_true", help=f"leave docs/{name}.md alone")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(required=True)
    gated = commands.add_parser("gate", help="what a request may cost, in counts")
    gated.set_defaults(run=lambda _: gate.run())
    measured = commands.add_parser("memory", help="what loops and connections have resident")
    measured.add_argument("--print-only", action="store_true", help="leave docs/peers.md alone")
    measured.set_defaults(run=lambda options: memory.run(write=not options.print_only))
    paused = commands.add_parser("unread", help="a busy connection beside 10,000 that are paused")
    paused.set_defaults(run=lambda _: unread.run())
    timed = commands.add_parser("affinity", help="the continuation modes against each other")
    _timed(timed, "affinity", affinity.ROUNDS, affinity.SECONDS)
    timed.set_defaults(
        run=lambda options: affinity.run(
            options.rounds, options.seconds, write=not options.print_only
        )
    )
    timed = commands.add_parser("peers", help="against uvloop, asyncio's own loop and others")
    _timed(timed, "peers", peers.ROUNDS, peers.SECONDS)
    timed.add_argument("--scene", action="append", default=[], choices=SCENES, help="only this one")
    timed.add_argument("--newer", metavar="PYTHON", help=f"of {peers.NEWER} (from PATH)")
    timed.add_argument("--no-instructions", action="store_true", help="count none")
    timed.add_argument("--from", dest="saved", type=Path, help="measure nothing, read this file")
    timed.set_defaults(
        run=lambda options: peers.run(
            options.rounds,
            options.seconds,
            write=not options.print_only,
            scenes=options.scene,
            newer=options.newer,
            counted=not options.no_instructions,
            saved=options.saved,
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
