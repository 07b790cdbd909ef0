# SPDX-License-Identifier: MIT
"""Globs over paths with slashes: `*` and `?` stay within a name, `**` goes over directories.

A pattern that matches a directory matches all below it.  `PurePath.full_match` would do, and comes
with Python 3.13 only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache


def matches(pattern: str, path: str) -> bool:
    """Whether the path, or a directory that it is in, is one that the pattern means."""
    return _compiled(pattern).fullmatch(path) is not None


def matches_any(patterns: Iterable[str], path: str) -> bool:
    """Whether one of the patterns matches."""
    return any(matches(pattern, path) for pattern in patterns)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    words = []
    for part in pattern.strip("/").split("/"):
        words.append(r"(?:[^/]+/)*" if part == "**" else _name(part) + "/")
    # What ends in ** means all below; what ends in a name means that, and all below it.
    whole = "".join(words)
    end = r"[^/]+" if pattern.strip("/").endswith("**") else r"(?:/.*)?"
    return re.compile((whole if end == r"[^/]+" else whole.removesuffix("/")) + end, re.DOTALL)


def _name(part: str) -> str:
    found = []
    place = 0
    while place < len(part):
        letter = part[place]
        place += 1
        if letter == "*":
            found.append("[^/]*")
        elif letter == "?":
            found.append("[^/]")
        elif letter == "[" and (end := part.find("]", place + 1)) >= 0:
            inner = part[place:end].replace("\\", "\\\\")
            found.append(f"[{'^' + inner[1:] if inner.startswith('!') else inner}]")
            place = end + 1
        else:
            found.append(re.escape(letter))
    return "".join(found)
