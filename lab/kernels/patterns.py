# SPDX-License-Identifier: MIT
"""Names with `*`, `?` and `[...]` in them, for several kernels at once."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

from ..errors import COMMAND, UsageError
from ..facts.kernel import version_key
from . import choice
from .catalogue import catalogue

ALL, EVERY = "all", "every"


def matching(names: Iterable[str], *, table: Sequence[str] = ()) -> tuple[str, ...]:
    """The names that are meant, in their order, each once.

    `all` means the kernels of the repository's `table`, and `every` each release that the sources
    offer.
    A pattern means the series that it matches, oldest first: `6.1*` is 6.1, 6.10, 6.12 and so on.
    Where it matches no series it means the upstream versions that it matches among all kernels
    that the sources offer: `6.12.9*`. What is no pattern stays as it is.

    Raises UsageError for a pattern that matches nothing, and KernelUnavailable when no source
    answers.
    """
    found: dict[str, None] = {}
    for name in names:
        if name == ALL:
            if not table:
                raise UsageError(f"{ALL!r} means the kernels of the table, and it names none")
            found |= dict.fromkeys(matching(one for one in table if one != ALL))
            continue
        if name == EVERY:
            releases = {kernel.upstream for kernel in choice.offered()}
            found |= dict.fromkeys(sorted(releases, key=version_key))
            continue
        # What has a slash in it is the path of a kernel.
        is_pattern = "/" not in name and any(letter in name for letter in "*?[")
        found |= dict.fromkeys(_meant(name) if is_pattern else (name,))
    return tuple(found)


def _meant(pattern: str) -> list[str]:
    locked = {kernel.series for kernel in choice.known()}
    series = fnmatch.filter(locked | {row.name for row in catalogue()}, pattern)
    if not series:
        releases = {kernel.upstream for kernel in choice.offered()}
        series = fnmatch.filter(releases, pattern)
    if not series:
        raise UsageError(
            f"no kernel matches {pattern!r}",
            hint=f"`{COMMAND} kernels list` shows every kernel that the sources offer",
        )
    return sorted(series, key=version_key)
