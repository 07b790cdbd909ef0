# SPDX-License-Identifier: MIT
"""The messages of one process on their way, and what is done to them there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from .scenario import Deed

HARMLESS = frozenset(
    (
        ("more",),
        *(
            ("data", name)
            for name in (
                "sections", "duration", "keywords", "location", "user_properties", "start", "stop",
                "longrepr", "_report_type", "lab_verdict", "lab_erratum", "item_index", "__class__",
            )
        ),
    )
)  # fmt: skip
"""Fields that say nothing about the verdict: a wrong one may be refused or not."""


class Messages:
    """Numbers messages and spoils them.

    `lie` is told of what no host may believe, `doubt` of what makes another verdict of one test.
    """

    def __init__(self, lie: Callable[[str], None], doubt: Callable[[str], None]) -> None:
        self._lie, self._doubt = lie, doubt
        self.next = 0
        """The number of the next message."""
        self._late: list[dict[str, Any]] = []

    def after(self, deeds: Sequence[Deed], honest: dict[str, Any]) -> list[dict[str, Any]]:
        """What arrives in place of an honest message."""
        out = [{"n": self.next, **honest}]
        self.next += 1
        late, self._late = self._late, []
        for deed in deeds:
            fit = deed.with_.get("fit", False)
            match deed.act:
                case "drop" if out:
                    self._lie(f"a {honest['type']} was dropped")
                    out.pop()
                    self.next -= fit
                case "twice" if out:
                    self._lie(f"a {honest['type']} came twice")
                    out.append({**out[-1], "n": self.next if fit else out[-1]["n"]})
                    self.next += fit
                case "later" if out:
                    self._lie(f"a {honest['type']} came late")
                    self._late = out
                    out = []
                case "insert":
                    self._lie(f"a {deed.with_['value'].get('type')!r} too many")
                    n = out[0]["n"] if out else self.next
                    out.insert(0, {"n": n, **deed.with_["value"]})
                    if fit and type(n) is int:  # another deed may have spoilt it
                        for number, message in enumerate(out):
                            message["n"] = n + number
                        self.next = n + len(out)
                case "set" if out:
                    out[-1] = self._set(out[-1], deed.with_["path"], deed.with_["value"])
        if late:  # they are in the wrong order, and numbered as if it were the right one
            out += late
            if all(type(message["n"]) is int for message in out):
                numbers = sorted(message["n"] for message in out)
                out = [{**m, "n": n} for m, n in zip(out, numbers, strict=True)]
        return out

    def _set(self, message: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
        new = copy.deepcopy(message)
        place: Any = new
        for key in path[:-1]:
            place = place.get(key) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            return message
        before = place.get(path[-1], "absent")
        place[path[-1]] = value
        same = before == value and type(before) is type(value)
        skipped = path[-1] == "longrepr" and place.get("outcome") == "skipped"
        if not same and (tuple(path) not in HARMLESS or skipped):
            other = skipped or path[-1] == "wasxfail"
            other |= path[-1] == "outcome" and value in ("passed", "failed", "skipped")
            tell = self._doubt if other else self._lie
            tell(f"{'.'.join(path)} of a {message['type']} was {value!r:.40}")
        return new
