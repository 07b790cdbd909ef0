# SPDX-License-Identifier: MIT
"""The reproducers on the running kernel, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ioxide._errata.every import REPRODUCERS
from ioxide._errata.present import Reproducer, needed_by

LIMIT_S = 20.0
"""How long one reproducer may take; the longest takes six seconds, ten under emulation."""
_AT_ONCE = 4
_ALONE = ("IOX-ERR-017",)
"""Those that count what all of the machine does."""


class Outcome(StrEnum):
    """What came of trying one erratum here."""

    BAD = "bad"
    GOOD = "good"
    NOT_APPLICABLE = "not applicable"
    NOT_TRIED = "not tried"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Tried:
    """What one reproducer found here."""

    id: str
    outcome: Outcome
    why: str
    """The evidence, what is lacking, or why nothing can be said."""


def chosen(ids: Sequence[str] | None) -> list[Reproducer]:
    """The reproducers of these errata, of all for None. Raises ValueError for an unknown id."""
    wanted = sorted(REPRODUCERS) if ids is None else list(dict.fromkeys(ids))
    for id in wanted:
        if id not in REPRODUCERS:
            raise ValueError(f"{id!r} is no erratum: `ioxide errata list` names them")
    return [REPRODUCERS[id] for id in wanted]


def attempt(some: Sequence[Reproducer], observed: Callable[[str], bool]) -> tuple[Tried, ...]:
    """Run reproducers, but for those that need what is not `observed` and those that would harm."""
    found: dict[str, Tried] = {}
    for one in some:
        id = one.id
        lacking = [name for name in needed_by(one.run) if not observed(name)]
        if lacking:
            why = f"this kernel has no {', '.join(lacking)}"
            found[id] = Tried(id, Outcome.NOT_APPLICABLE, why)
        elif one.harm:
            why = f"on a kernel that has it {one.harm}: try it in a guest"
            found[id] = Tried(id, Outcome.NOT_TRIED, why)
    todo = [one.id for one in some if one.id not in found]
    found |= _in_processes(todo)
    return tuple(found[one.id] for one in some)


def _in_processes(ids: Sequence[str]) -> dict[str, Tried]:
    task = {
        "together": [id for id in ids if id not in _ALONE],
        "alone": [id for id in ids if id in _ALONE],
        "limit_s": LIMIT_S,
        "at_once": _AT_ONCE,
    }
    # Assertions are the reproducers' controls; without them a kernel would be good unseen.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONOPTIMIZE"}
    done = subprocess.run(
        [sys.executable, "-m", "ioxide._errata.supervisor"],
        env=environment,
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    found = {id: Tried(id, Outcome(outcome), why) for id, outcome, why in lines}
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    lost = f"what runs the reproducers ended with {done.returncode}: {last}"
    return {id: found.get(id, Tried(id, Outcome.FAILED, lost)) for id in ids}
