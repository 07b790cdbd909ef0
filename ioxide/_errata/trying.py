# SPDX-License-Identifier: MIT
"""The reproducers on the running kernel, each in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

from ioxide._errata.every import REPRODUCERS
from ioxide._errata.present import Reproducer, needed_by

LIMIT_S = 15.0
"""How long one reproducer may take; the longest takes 6 s on a kernel that has its erratum."""
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
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        together = [id for id in todo if id not in _ALONE]
        found |= {tried.id: tried for tried in pool.map(_in_a_process, together)}
    found |= {id: _in_a_process(id) for id in todo if id in _ALONE}
    return tuple(found[one.id] for one in some)


def _in_a_process(id: str) -> Tried:
    # Assertions are the reproducers' controls; without them a kernel would be good unseen.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONOPTIMIZE"}
    process = subprocess.Popen(
        [sys.executable, "-m", "ioxide._errata.one", id],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said, complaint = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return Tried(id, Outcome.FAILED, f"its process did not end within {LIMIT_S:.0f} s")
    try:
        outcome, why = json.loads(said)
        return Tried(id, Outcome(outcome), why)
    except ValueError:
        last = (complaint.strip().splitlines() or ["it said nothing"])[-1]
        how = f"its process ended with {process.returncode}: {last}"
        return Tried(id, Outcome.FAILED, how)
