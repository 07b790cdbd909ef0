# SPDX-License-Identifier: MIT
"""kernels.toml: which series the lab is about, and what the sources are asked."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .. import arch
from ..errors import LabError

CATALOGUE = Path(__file__).with_name("kernels.toml")


@dataclass(frozen=True, slots=True)
class Series:
    """One row of the catalogue."""

    name: str
    why: str
    source: str


@dataclass(frozen=True, slots=True)
class DebianSettings:
    """What the Debian archive is asked for."""

    suites: tuple[str, ...]
    packages: tuple[re.Pattern[str], ...]
    """In the file `{arch}` stands for this machine's kind."""


@dataclass(frozen=True, slots=True)
class MainlineSettings:
    """Where the mainline archive is and by which key it signs."""

    mirror: str
    fingerprint: str
    """Of the primary key, all 40 digits."""
    key_url: str
    """Where the key is to be had; `{fingerprint}` stands in it."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The whole file."""

    series: tuple[Series, ...]
    debian: DebianSettings
    mainline: MainlineSettings


@cache
def read(path: Path = CATALOGUE) -> Catalogue:
    """The catalogue. Raises LabError naming what is wrong in it."""
    try:
        table = tomllib.loads(path.read_text())
        rows = tuple(
            Series(name=name, why=_text(row, "why"), source=_text(row, "source"))
            for name, row in table["series"].items()
        )
        debian = table["debian"]
        settings = DebianSettings(
            suites=_texts(debian, "suites"),
            packages=tuple(_pattern(text) for text in _texts(debian, "packages")),
        )
        archive = table["mainline"]
        mainline = MainlineSettings(
            mirror=_text(archive, "mirror"),
            fingerprint=_text(archive, "fingerprint"),
            key_url=_text(archive, "key_url"),
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError, re.error) as error:
        raise LabError(f"{path.name} is not a kernel catalogue: {error!r}") from error
    for pattern in settings.packages:
        if "release" not in pattern.groupindex:
            raise LabError(f"{path.name}: {pattern.pattern!r} has no group 'release'")
    return Catalogue(series=rows, debian=settings, mainline=mainline)


def _pattern(text: str) -> re.Pattern[str]:
    """With this machine's kind in place of {arch}, as Debian calls it."""
    return re.compile(text.replace("{arch}", re.escape(arch.here().debian)))


def _text(row: dict[str, Any], name: str) -> str:
    if not isinstance(row[name], str):
        raise TypeError(f"{name} is {row[name]!r}, expected a text")
    return str(row[name])


def _texts(row: dict[str, Any], name: str) -> tuple[str, ...]:
    values = row[name]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"{name} is {values!r}, expected a list of texts")
    return tuple(values)


def catalogue() -> tuple[Series, ...]:
    """Every series of the catalogue, in its order."""
    return read().series


def series(name: str) -> Series | None:
    """The series called `name`, if the catalogue has it."""
    return next((row for row in catalogue() if row.name == name), None)
