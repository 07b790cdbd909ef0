# SPDX-License-Identifier: MIT
"""What was measured against what errata.toml lists, and the lists written anew."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import LabError
from ..facts.errata import Measured, Seen
from ..facts.kernel import version_key
from ..rules.errata import Catalogue, Erratum
from .table import in_order


@dataclass(frozen=True, slots=True)
class Difference:
    """One release on which a measurement contradicts the lists, or that no list names."""

    erratum: str
    package: str
    seen: Seen
    surprise: bool
    """The lists say the opposite; otherwise they say nothing."""

    def __str__(self) -> str:
        return _sentence(self, (self.package,))


def _sentence(one: Difference, packages: Sequence[str]) -> str:
    if one.seen is Seen.NOT_APPLICABLE:
        lists = "which a list names: it has what the reproducer needs"
    elif one.surprise:
        lists = f"which known_{'good' if one.seen is Seen.PRESENT else 'bad'} names"
    else:
        lists = "which no list names"
    word = "surprise: " if one.surprise else ""
    return f"{word}{one.erratum} is {one.seen} on {', '.join(packages)}, {lists}"


def told(differences: Iterable[Difference]) -> list[str]:
    """The differences as sentences, one for all releases of which the same is to be said."""
    groups: dict[tuple[str, Seen, bool], list[Difference]] = {}
    for one in differences:
        groups.setdefault((one.erratum, one.seen, one.surprise), []).append(one)
    return [_sentence(group[0], [one.package for one in group]) for group in groups.values()]


def differences(catalogue: Catalogue, measured: Iterable[Measured]) -> list[Difference]:
    """Every decided finding that the lists do not have, contradictions first."""
    found = []
    for row in in_order(measured):
        for erratum in catalogue:
            seen = row.findings[erratum.id].seen
            expected = erratum.expected(row.upstream, row.package)
            if seen in (Seen.PRESENT, Seen.ABSENT) and expected is not (seen is Seen.PRESENT):
                surprise = expected is not None
                found.append(Difference(erratum.id, row.package, seen, surprise))
            elif seen is Seen.NOT_APPLICABLE and expected is not None:
                found.append(Difference(erratum.id, row.package, seen, True))
    return sorted(found, key=lambda difference: not difference.surprise)


def updated(text: str, catalogue: Catalogue, measured: Iterable[Measured]) -> str:
    """`text` of errata.toml with the lists as measured; releases not measured now stay listed.

    Raises LabError when an entry has not the lines this looks for.
    """
    rows = in_order(measured)
    blocks = re.split(r"(?m)^(?=\[\[erratum\]\])", text)
    for number, block in enumerate(blocks):
        match = re.search(r'(?m)^id = "([^"]+)"$', block)
        erratum = catalogue.get(match[1]) if match else None
        if erratum is None:
            continue
        bad, good = _merged(erratum, rows)
        for name, values in (("known_bad", bad), ("known_good", good)):
            blocks[number], times = re.subn(
                rf"(?ms)^{name} = \[.*?\]$", f"{name} = {_list(values)}", blocks[number]
            )
            if times != 1:
                raise LabError(f"errata.toml: {erratum.id} has no line `{name} = [...]`")
    return "".join(blocks)


def _merged(erratum: Erratum, rows: Sequence[Measured]) -> tuple[list[str], list[str]]:
    """The names to list: upstream versions, or package versions where packagings differ."""
    by_upstream: dict[str, dict[str, Seen]] = {}
    for row in rows:
        seen = row.findings[erratum.id].seen
        if seen in (Seen.PRESENT, Seen.ABSENT):
            by_upstream.setdefault(row.upstream, {})[row.package] = seen
    measured = {row.upstream for row in rows if row.upstream in by_upstream}
    measured |= {row.package for row in rows if row.upstream in by_upstream}
    lists: dict[Seen, set[str]] = {
        Seen.PRESENT: set(erratum.known_bad) - measured,
        Seen.ABSENT: set(erratum.known_good) - measured,
    }
    for upstream, packages in by_upstream.items():
        if len(set(packages.values())) == 1:
            lists[next(iter(packages.values()))].add(upstream)
        else:
            for package, seen in packages.items():
                lists[seen].add(package)
    bad, good = (sorted(lists[s], key=version_key) for s in (Seen.PRESENT, Seen.ABSENT))
    return bad, good


def _list(values: Sequence[str]) -> str:
    """A TOML list, wrapped at 100 columns."""
    quoted = [f'"{value}"' for value in values]
    line = f"[{', '.join(quoted)}]"
    if len(line) <= 80:
        return line
    lines, current = [], ""
    for one in quoted:
        if current and len(current) + len(one) > 90:
            lines.append(current)
            current = ""
        current += ("" if not current else " ") + one + ","
    return "[\n" + "".join(f"    {text}\n" for text in (*lines, current)) + "]"
