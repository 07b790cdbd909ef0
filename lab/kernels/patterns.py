# SPDX-License-Identifier: MIT
"""Names with `*`, `?` and `[...]` in them, for several kernels at once."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import COMMAND, LabError, UsageError
from ..facts.kernel import version_key
from . import choice
from .catalogue import catalogue

ALL, EVERY = "all", "every"


def split(given: str) -> Sequence[str]:
    """The names in one `--kernel`, with spaces between them. A path with a space in it is one name,
    unless each of the words is a name or the path of a file."""
    words = given.split()
    paths = [word for word in words if "/" in word]
    one = "/" in given and any(Path(p).exists() for p in (given, given.partition(":")[0]))
    there = all(Path(word.partition(":")[0]).exists() for word in paths)
    return [given] if one or not there else words


def matching(
    names: Iterable[str], *, table: Sequence[str] = (), ask: bool = True
) -> tuple[str, ...]:
    """The names that are meant, in their order, each once.

    `all` means the kernels of the repository's `table`, and `every` each release that the sources
    offer. A kernel of one's own among the names, a path, stands for its series in what `all` means.
    A pattern means the series that it matches, oldest first: `6.1*` is 6.1, 6.10, 6.12 and so on.
    Where it matches no series it means the upstream versions that it matches among all kernels
    that the sources offer: `6.12.9*`. What is no pattern stays as it is.

    Without `ask` no source is asked. Raises UsageError for a pattern that matches nothing, and for
    one that only the sources could tell where they are not to be asked; KernelUnavailable when no
    source answers.
    """
    names = list(names)
    found: dict[str, None] = {}
    for name in names:
        if name == ALL:
            if not table:
                raise UsageError(f"{ALL!r} means the kernels of the table, and it names none")
            ours = _series_of_own(names)
            of_table = matching([one for one in table if one != ALL], ask=ask)
            found |= dict.fromkeys(one for one in of_table if one not in ours)
            continue
        if name == EVERY:
            releases = _offered(name, ask=ask)
            found |= dict.fromkeys(sorted(releases, key=version_key))
            continue
        # What has a slash in it is the path of a kernel.
        is_pattern = "/" not in name and any(letter in name for letter in "*?[")
        found |= dict.fromkeys(_meant(name, ask=ask) if is_pattern else (name,))
    return tuple(found)


def _series_of_own(names: Iterable[str]) -> frozenset[str]:
    """The series of the kernels of one's own among these names."""
    found = set()
    for name in names:
        if "/" in name:
            with suppress(LabError):  # said when the kernel itself is wanted
                found.add(choice.resolve(name).series)
    return frozenset(found)


def _offered(name: str, *, ask: bool) -> set[str]:
    if not ask:
        raise UsageError(
            f"{name!r} is told by the sources alone, and here none is asked",
            hint="name series, or a pattern that matches some: 6.1*",
        )
    return {kernel.upstream for kernel in choice.offered()}


def _meant(pattern: str, *, ask: bool) -> list[str]:
    locked = {kernel.series for kernel in choice.known()}
    series = fnmatch.filter(locked | {row.name for row in catalogue()}, pattern)
    if not series:
        series = fnmatch.filter(_offered(pattern, ask=ask), pattern)
    if not series:
        raise UsageError(
            f"no kernel matches {pattern!r}",
            hint=f"`{COMMAND} kernels list` shows every kernel that the sources offer",
        )
    return sorted(series, key=version_key)
