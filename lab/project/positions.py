# SPDX-License-Identifier: MIT
"""On which line of a TOML file each of its keys is.

tomllib gives no positions, and tomlkit 0.13 keeps its own to itself. The text is known to be valid:
so a statement is the fewest lines from where it begins that tomllib can read, whatever strings and
arrays go over several lines.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

Path = tuple[str | int, ...]
"""Keys and, below an array of tables, the number of the table: ("tool", "lab", "programs", 0)."""

_TABLE = re.compile(r"\s*(\[\[?)")


def lines_of(text: str) -> dict[Path, int]:
    """The line of every key and table of a valid TOML text, counted from 1."""
    found: dict[Path, int] = {}
    arrays: Counter[Path] = Counter()
    above: Path = ()
    for number, table, value in _statements(text.split("\n")):
        if table:
            above = _numbered(tuple(_keys_of_table(value)), arrays, of_array=table == "[[")
            found.setdefault(above, number)
        else:
            for path in _paths(value, above):
                found.setdefault(path, number)
    return found


def _statements(lines: list[str]) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """Line, `[` or `[[` of a table's header, and what the statement alone means."""
    begin = 0
    while begin < len(lines):
        end = begin + 1
        while True:
            try:
                value = tomllib.loads("\n".join(lines[begin:end]))
                break
            except tomllib.TOMLDecodeError:
                if end == len(lines):
                    return
                end += 1
        if value:
            header = _TABLE.match(lines[begin])
            yield begin + 1, header[1] if header else "", value
        begin = end


def _keys_of_table(value: Any) -> Iterator[str]:
    while value:
        [(key, value)] = value.items()
        yield key
        value = value[0] if isinstance(value, list) else value


def _numbered(keys: tuple[str, ...], arrays: Counter[Path], *, of_array: bool) -> Path:
    """The table's path, with the numbers of the arrays of tables that it is in."""
    path: Path = ()
    for place, key in enumerate(keys, 1):
        path = (*path, key)
        if of_array and place == len(keys):
            arrays[path] += 1
        if arrays[path]:
            path = (*path, arrays[path] - 1)
    return path


def _paths(value: Any, above: Path) -> Iterator[Path]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in items:
        yield (*above, key)
        if isinstance(below, (dict, list)):
            yield from _paths(below, (*above, key))
