# SPDX-License-Identifier: MIT
"""Which kernels a matrix of jobs is to have, told from the lock and the catalogue alone: no archive
is asked, so that the jobs are the same wherever this is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import UsageError
from ..facts.kernel import Flavour, version_key
from . import lock, store
from .catalogue import catalogue, series
from .choice import NEWEST, built_here
from .model import newest_first
from .patterns import matching, split
from .source import named


@dataclass(frozen=True, slots=True)
class Planned:
    """One kernel of a matrix."""

    name: str
    """By which it is asked for."""
    series: str
    """Empty if neither the lock nor the catalogue tells."""
    source: str
    """Which source it comes from; empty if nothing tells before the sources are asked."""
    locked: bool
    release: str
    """What `uname -r` will say; empty for an unlocked one."""
    package: str
    """The package version; empty for an unlocked one."""
    entry: str
    """What its files are called in the cache, which has a hash over its packages in it; empty for
    an unlocked one."""


def planned(
    names: Iterable[str], *, table: Sequence[str] = (), notes: list[str] | None = None
) -> tuple[Planned, ...]:
    """The kernels meant by these names, which are spelled as for a run, in their order; without
    names those of the `table`, and without one those of the catalogue, of which the last is taken
    as `newest`.

    A kernel that two names mean is planned once, by the first, and `notes` gets a sentence about
    it. Raises UsageError for a name that no kernel could have, and for one that only the sources
    could tell.
    """
    asked = [word for given in names for word in split(given)] or list(table) or _all()
    rows: list[Planned] = []
    for row in map(_one, matching(asked, table=table, ask=False)):
        same = (other for other in rows if row.locked and row.entry == other.entry)
        if (other := next(same, None)) is None:
            rows.append(row)
        elif notes is not None:
            notes.append(
                f"{other.name} and {row.name} are one kernel, {row.package}, and it is planned once"
            )
    return tuple(rows)


def _all() -> Sequence[str]:
    newest = max((row.name for row in catalogue()), key=version_key)
    return [NEWEST if row.name == newest else row.name for row in catalogue()]


def _one(name: str) -> Planned:
    if "/" in name:
        raise UsageError(f"{name} is a kernel of this machine's own, and a plan is for any machine")
    wanted = name.removeprefix("v")
    if wanted.endswith("+debug") or any(wanted in (k.package, k.release) for k in built_here()):
        raise UsageError(f"{name} is a kernel that was built here, and a plan is for any machine")
    some = [r for r in lock.read() if r.kernel.flavour is not Flavour.FULL]
    for release in newest_first(some):
        kernel = release.kernel
        if wanted == NEWEST or named(kernel, wanted):
            return Planned(
                name=name,
                series=kernel.series,
                source=kernel.source,
                locked=True,
                release=kernel.release,
                package=kernel.package,
                entry=store.entry_name(release),
            )
    row = series(wanted)
    if row is None and not wanted[:1].isdigit():
        known = ", ".join(one.name for one in catalogue())
        hint = "newest means the newest locked kernel" if name == NEWEST else f"known are {known}"
        raise UsageError(f"{name!r} is neither in the lock nor a version", hint=hint)
    return Planned(
        name=name,
        series=row.name if row else "",
        source=row.source if row else "",
        locked=False,
        release="",
        package="",
        entry="",
    )
