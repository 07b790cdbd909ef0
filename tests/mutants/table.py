# SPDX-License-Identifier: MIT
"""The mutants, as the ``*.toml`` files beside this one list them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

HERE = Path(__file__).parent

_TEXTS = ("id", "breaks", "what", "file")
_SAYS_NOTHING = {"AssertionError", "AssertionError:"}
"""pytest leaves "AssertionError" out of some messages, by the quotes that occur in them."""
_KEYS = {*_TEXTS, "search", "replace", "also", "red", "controls", "hangs", "since"}


class TableError(Exception):
    """A table cannot be used; the message names the file, the mutant and what to change."""


class Stale(Exception):
    """A mutant's text is not in its file exactly once: the code has changed under it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One bug, where it goes, and what has to notice it."""

    id: str
    breaks: str
    """The issue or rule that it breaks: ``#93``, ``resume``."""
    what: str
    """The bug in a sentence."""
    file: str
    edits: tuple[tuple[str, str], ...]
    """What is searched for, which occurs in `file` exactly once, and what replaces it."""
    red: Mapping[str, str]
    """Node ids of the tests that must fail, each with a part of the message it must fail with."""
    controls: tuple[str, ...] = ()
    """Node ids of tests that must still pass, beside the table's own."""
    hangs: bool = False
    """The tests end by being killed; only then does a hang count."""
    since: tuple[int, int] | None = None
    """The kernel series from which on the bug shows at all; before it, its tests rightly pass."""

    @property
    def compiled(self) -> bool:
        """Whether the extension has to be built again."""
        return PurePosixPath(self.file).suffix in {".c", ".h"}

    def shows_on(self, release: str) -> bool:
        """Whether a kernel whose `uname -r` is `release` lets the bug show; raises ValueError."""
        return self.since is None or self.since <= series(release)

    def apply(self, text: str) -> str:
        """The file's text with the bug in it; raises `Stale`."""
        for search, replace in self.edits:
            count = text.count(search)
            if count != 1:
                raise Stale(
                    f"{self.file} has {search.strip().splitlines()[0]!r} and what follows "
                    f"{count} times instead of once: bring the mutant up to date with the code"
                )
            text = text.replace(search, replace)
        return text


@dataclass(frozen=True, slots=True)
class Table:
    """Mutants, and the controls that must pass under each of them."""

    mutants: tuple[Mutant, ...]
    controls: tuple[str, ...]

    def matching(self, words: Iterable[str]) -> Table:
        """Only the mutants in whose id, issue or file one of `words` occurs."""
        wanted = tuple(words)
        chosen = tuple(
            mutant
            for mutant in self.mutants
            if not wanted
            or any(word in f"{mutant.id} {mutant.breaks} {mutant.file}" for word in wanted)
        )
        return Table(chosen, self.controls)

    def share(self, number: int, of: int) -> Table:
        """The `number`-th of `of` shares of the mutants, counted from 1."""
        return Table(self.mutants[number - 1 :: of], self.controls)

    def controls_of(self, mutant: Mutant) -> tuple[str, ...]:
        """All controls of one mutant, each once."""
        return tuple(dict.fromkeys((*self.controls, *mutant.controls)))

    def tests(self) -> tuple[str, ...]:
        """Every node id that any mutant names, each once."""
        named: dict[str, None] = {}
        for mutant in self.mutants:
            named.update(dict.fromkeys((*self.controls_of(mutant), *mutant.red)))
        return tuple(named)


def series(release: str) -> tuple[int, int]:
    """The first two numbers of `uname -r`; raises ValueError."""
    if found := re.match(r"(\d+)\.(\d+)(?!\d)", release):
        return int(found[1]), int(found[2])
    raise ValueError(f"{release!r} does not begin with a kernel series such as 6.14")


def _mutant(where: str, entry: Mapping[str, Any]) -> Mutant:
    name = f"{where}, mutant {entry.get('id', '(without an id)')!r}"
    if unknown := set(entry) - _KEYS:
        raise TableError(f"{name}: unknown keys {sorted(unknown)}; there are {sorted(_KEYS)}")
    for key in _TEXTS:
        value = entry.get(key)
        if not isinstance(value, str) or not value:
            raise TableError(f"{name}: {key} must be a text, not {value!r}")
    edits = []
    for part in (entry, *entry.get("also", ())):
        search, replace = part.get("search"), part.get("replace")
        if not isinstance(search, str) or not search.strip() or not isinstance(replace, str):
            raise TableError(f"{name}: search and replace must be texts, and search not empty")
        if search == replace:
            raise TableError(f"{name}: search and replace are equal, so nothing would change")
        edits.append((search, replace))
    red = entry.get("red")
    if (
        not isinstance(red, dict)
        or not red
        or not all(isinstance(text, str) and text for text in red.values())
    ):
        raise TableError(
            f"{name}: red must name at least one test and a part of the message it fails with"
        )
    for node, text in red.items():
        if text.strip() in _SAYS_NOTHING:
            raise TableError(
                f"{name}: {text!r} tells no assertion from another: give a part of what {node} says"
            )
    since = entry.get("since")
    try:
        since = None if since is None else series(str(since))
    except ValueError as error:
        raise TableError(f"{name}: since: {error}") from None
    return Mutant(
        **{key: entry[key] for key in _TEXTS},
        edits=tuple(edits),
        red=red,
        controls=tuple(entry.get("controls", ())),
        hangs=bool(entry.get("hangs", False)),
        since=since,
    )


def load(paths: Iterable[Path] | None = None) -> Table:
    """Read the tables, all of those beside this file unless told otherwise; raises `TableError`."""
    mutants: dict[str, Mutant] = {}
    controls: dict[str, None] = {}
    for path in sorted(HERE.glob("*.toml")) if paths is None else paths:
        try:
            data = tomllib.loads(path.read_text())
        except OSError as error:
            raise TableError(f"{path}: {error.strerror}") from error
        except tomllib.TOMLDecodeError as error:
            raise TableError(f"{path.name}: {error}") from error
        if unknown := set(data) - {"controls", "mutant"}:
            raise TableError(f"{path.name}: unknown keys {sorted(unknown)}")
        controls.update(dict.fromkeys(data.get("controls", ())))
        for entry in data.get("mutant", ()):
            mutant = _mutant(path.name, entry)
            if mutant.id in mutants:
                raise TableError(f"{path.name}: the id {mutant.id!r} is used twice")
            mutants[mutant.id] = mutant
    if mutants and not controls:
        raise TableError("no table names a control that must pass under every mutant")
    return Table(tuple(mutants.values()), tuple(controls))
