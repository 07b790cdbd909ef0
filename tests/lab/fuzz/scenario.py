# SPDX-License-Identifier: MIT
"""A run to be tried: how many guests and tests, and what goes wrong at which moment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

MOMENTS = (
    # Of a guest.
    "boot", "tar", "probe", "spawn", "log", "kill",
    # What its pytest says; "exited" is the agent's word of its end.
    "hello", "collected", "start", "report", "finish", "done", "exited",
)  # fmt: skip
MESSAGES = ("hello", "collected", "start", "report", "finish", "done")

ACTS = {
    "say": "the kernel says `what`, in the form `how`",
    "gap": "so many records of its log are overwritten unread",
    "lost": "the guest dies, its kernel's last line being `what`, if any",
    "exit": "the process ends with this status",
    "silence": "the process says nothing more, and ends when it is killed",
    "deaf": "nothing comes from the agent any more",
    "jump": "so many seconds pass",
    "noise": "the process prints bytes",
    "error": "the agent says that it cannot",
    "drop": "this message does not arrive",
    "twice": "this message arrives twice",
    "later": "this message arrives behind the next one",
    "set": "the field at `path` of this message becomes `value`",
    "insert": "another message, `value`, comes before it",
    "frame": "the next frame is damaged: `how`",
    "data": "the next answer about the log is these bytes",
}
"""What may be done, and what its arguments mean."""


class ScenarioError(ValueError):
    """A line that is no scenario; the message says why."""


@dataclass(frozen=True, slots=True)
class Deed:
    """Something goes wrong."""

    at: str
    """The moment."""
    nth: int
    """When it has come so many times before; -1 for each time."""
    act: str
    with_: Mapping[str, Any]
    """Arguments of the act."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run."""

    outcomes: tuple[str, ...]
    """Of each test: passed, failed, skipped."""
    guests: int
    deeds: tuple[Deed, ...]

    def line(self) -> str:
        """The scenario as one line of JSON, which `parse` reads."""
        return json.dumps(asdict(self))


def parse(line: str) -> Scenario:
    """The inverse of `Scenario.line`. Raises ScenarioError."""
    try:
        raw = json.loads(line)
        deeds = tuple(Deed(d["at"], d["nth"], d["act"], d["with_"]) for d in raw["deeds"])
        found = Scenario(tuple(raw["outcomes"]), raw["guests"], deeds)
    except (ValueError, KeyError, TypeError) as error:
        raise ScenarioError(f"{line[:80]!r} is no scenario: {error!r}") from error
    for deed in deeds:
        if deed.at not in MOMENTS or deed.act not in ACTS:
            raise ScenarioError(f"there is no {deed.act!r} at {deed.at!r}")
    return found
