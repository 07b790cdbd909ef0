# SPDX-License-Identifier: MIT
"""The list of errata: the only place that says what is broken where."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import LabError
from ..project import Project

_ID = re.compile(r"[A-Z][A-Z0-9]*(-[A-Z0-9]+)*-\d{3}")
_CAPABILITY = re.compile(r"[A-Z][A-Z0-9_]*")
_RELEASE = re.compile(r"\d+\.\d+(\.\d+)?(-\S+)?")
_FIELDS = frozenset(
    (
        "id",
        "title",
        "capability",
        "reproducer",
        "known_bad",
        "known_good",
        "links",
        "reported",
        "splat",
        "warning",
    )
)


@dataclass(frozen=True, slots=True)
class Erratum:
    """One defect of released kernels."""

    id: str
    """ "ABC-ERR-001"; never given again."""
    title: str
    """What goes wrong, in half a sentence."""
    capability: str
    """Which of the probe's capabilities it spoils."""
    reproducer: str
    """Node id of the one test that may end as xfailed by it."""
    known_bad: tuple[str, ...]
    """Upstream versions or package versions on which it was measured to be present."""
    known_good: tuple[str, ...]
    """Those on which it was measured to be absent."""
    links: tuple[str, ...]
    """Its public descriptions."""
    reported: str
    """What others say about which kernels have it; nothing is judged by it."""
    splat: re.Pattern[str] | None = None
    """The line by which a kernel that notices the defect itself complains of it in its log."""
    warning: re.Pattern[str] | None = None
    """The line by which a kernel that has not the defect complains of what the reproducer does."""

    def explains(self, line: str) -> bool:
        """Whether this line of a kernel log is to be expected while the reproducer runs."""
        return self.complained(line) or (
            self.warning is not None and self.warning.search(line) is not None
        )

    def complained(self, line: str) -> bool:
        """Whether this line of a kernel log is the complaint that belongs to the defect."""
        return self.splat is not None and self.splat.search(line) is not None

    def expected(self, upstream: str, package: str) -> bool | None:
        """Whether it is present on this release by the lists; None if neither names it.

        A package version counts before the upstream version: a distribution may have mended it.
        """
        for name in (package, upstream):
            if name and name in self.known_bad:
                return True
            if name and name in self.known_good:
                return False
        return None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All errata, in the order of their ids."""

    errata: tuple[Erratum, ...]
    reproducers_in: str = ""
    """The directory of the reproducers, relative to the root of the repository."""

    def __iter__(self) -> Iterator[Erratum]:
        return iter(self.errata)

    @property
    def reproducers(self) -> dict[str, str]:
        """The node id of the reproducer by erratum."""
        return {erratum.id: erratum.reproducer for erratum in self.errata}

    def get(self, id: str) -> Erratum | None:
        """The erratum called `id`."""
        return next((erratum for erratum in self.errata if erratum.id == id), None)

    def reproduced_by(self, node: str) -> Erratum | None:
        """The erratum that the test `node` reproduces."""
        return next((erratum for erratum in self.errata if erratum.reproducer == node), None)


def of(project: Project) -> Catalogue:
    """The catalogue of a repository, empty if it has none. Raises LabError."""
    if project.errata is None:
        return Catalogue(())
    return read(project.path(project.errata.list), project.errata.reproducers)


@cache
def read(path: Path, reproducers: str) -> Catalogue:
    """The catalogue, whose reproducers are in that directory.

    Raises LabError, naming the entry and the value that is wrong in it.
    """
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise LabError(f"{path.name} cannot be read: {error}") from error
    if unknown := table.keys() - {"erratum"}:
        raise LabError(f"{path.name}: unknown table {sorted(unknown)[0]!r}, expected [[erratum]]")
    entries = table.get("erratum", [])
    if not isinstance(entries, list):
        raise LabError(f"{path.name}: erratum is no list of tables, write [[erratum]]")
    errata = tuple(
        _erratum(entry, f"{path.name}, erratum {n}", reproducers)
        for n, entry in enumerate(entries, 1)
    )
    for what in ("id", "reproducer"):
        values = [getattr(erratum, what) for erratum in errata]
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise LabError(f"{path.name}: the {what} {twice[0]!r} occurs more than once")
    return Catalogue(tuple(sorted(errata, key=lambda erratum: erratum.id)), reproducers)


def _erratum(entry: Mapping[str, Any], where: str, reproducers: str) -> Erratum:
    if not isinstance(entry, dict):
        raise LabError(f"{where}: {entry!r} is no table")
    where = f"{where} ({entry.get('id', 'without id')})"
    if unknown := entry.keys() - _FIELDS:
        raise LabError(f"{where}: unknown field {sorted(unknown)[0]!r}")
    bad, good = (_releases(entry, name, where) for name in ("known_bad", "known_good"))
    if both := sorted(set(bad) & set(good)):
        raise LabError(f"{where}: {both[0]} is in known_bad and in known_good; measure it again")
    node = re.compile(rf"{re.escape(reproducers)}/test_\w+\.py::test_\w+")
    return Erratum(
        id=_text(entry, "id", where, _ID, "ABC-ERR-001"),
        title=_text(entry, "title", where),
        capability=_text(entry, "capability", where, _CAPABILITY, "BUNDLE"),
        reproducer=_text(
            entry, "reproducer", where, node, f"{reproducers}/test_errata_it.py::test_it"
        ),
        known_bad=bad,
        known_good=good,
        links=_texts(entry, "links", where),
        reported=_text(entry, "reported", where) if "reported" in entry else "",
        splat=_pattern(entry, "splat", where) if "splat" in entry else None,
        warning=_pattern(entry, "warning", where) if "warning" in entry else None,
    )


def _text(
    entry: Mapping[str, Any],
    name: str,
    where: str,
    pattern: re.Pattern[str] | None = None,
    example: str = "",
) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not value.strip():
        raise LabError(f"{where}: {name} is {value!r}, expected a text")
    if pattern is not None and not pattern.fullmatch(value):
        raise LabError(f"{where}: {name} is {value!r}, expected one like {example!r}")
    return value


def _pattern(entry: Mapping[str, Any], name: str, where: str) -> re.Pattern[str]:
    value = _text(entry, name, where)
    try:
        return re.compile(value)
    except re.error as error:
        raise LabError(f"{where}: {name} is {value!r}, no regular expression: {error}") from error


def _texts(entry: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    values = entry.get(name, [])
    if not isinstance(values, list) or not all(isinstance(v, str) and v for v in values):
        raise LabError(f"{where}: {name} is {values!r}, expected a list of texts")
    if twice := sorted({value for value in values if values.count(value) > 1}):
        raise LabError(f"{where}: {name} has {twice[0]!r} more than once")
    return tuple(values)


def _releases(entry: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    values = _texts(entry, name, where)
    for value in values:
        if not _RELEASE.fullmatch(value):
            raise LabError(
                f"{where}: {name} has {value!r}, expected an upstream version like '6.12.107' "
                "or a package version like '6.12.107-1'"
            )
    return values
