# SPDX-License-Identifier: MIT
"""What has changed since the run before of the same selection, for the top of the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...facts.verdicts import Verdict
from .. import previous
from .reading import Source
from .rows import LETTERS, Change, Changes, Column
from .shown import MOST_ID, line

MOST = 200
"""So many changes are shown."""


def changed(source: Source, columns: Sequence[Column], ids: Sequence[str]) -> Changes | None:
    """Of one run; None if it was compared with none."""
    found = source.whole.get("previous")
    if found is None:
        return None
    changes = [*_tests(found, source, columns, ids), *_kernels(found)]
    return Changes(
        line(found["directory"], MOST_ID),
        line(found["ended"], 40),
        changes[:MOST],
        max(0, len(changes) - MOST),
    )


def _tests(
    found: Mapping[str, Any], source: Source, columns: Sequence[Column], ids: Sequence[str]
) -> Iterator[Change]:
    places = {name: place for place, name in enumerate(ids)}
    own = dict(
        zip(source.whole["legs"], (one for one in columns if one.source is source), strict=True)
    )
    for kind, words in previous.KINDS.items():
        for one in found[kind]:
            column, place = own.get(one["kernel"]), places.get(one["test"])
            there = column is not None and place is not None and one["now"] is not None
            yield Change(
                words,
                line(one["kernel"], 80),
                line(one["test"], MOST_ID),
                _verdict(one["before"]),
                _verdict(one["now"]),
                line(one["why"], MOST_ID),
                f"t-{place}-{column.number}" if there and column else "",
            )


def _kernels(found: Mapping[str, Any]) -> Iterator[Change]:
    for one in found["kernels"]:
        before, now = one["before"], one["now"]
        for key in ("release", "exit"):
            if before[key] != now[key]:
                yield Change(
                    "kernel",
                    line(one["asked"], 80),
                    key,
                    ("", _value(before[key])),
                    ("", _value(now[key])),
                    "",
                    "",
                )


def _value(value: object) -> str:
    return "none" if value is None else line(str(value), 80)


def _verdict(word: str | None) -> tuple[str, str]:
    return (LETTERS[Verdict(word)], word) if word else ("", "")
