# SPDX-License-Identifier: MIT
"""kernels.toml: which series exist for the lab, and which source delivers each."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lab.errors import LabError

CATALOGUE = Path(__file__).with_name("kernels.toml")


@dataclass(frozen=True, slots=True)
class Series:
    """One row of the catalogue."""

    name: str
    why: str
    source: str
    suite: str
    package: re.Pattern[str]


@cache
def catalogue(path: Path = CATALOGUE) -> tuple[Series, ...]:
    """Every series of the catalogue, in its order. Raises LabError naming what is wrong in it."""
    try:
        table = tomllib.loads(path.read_text())["series"]
        rows = tuple(
            Series(
                name=name,
                why=row["why"],
                source=row["source"],
                suite=row["suite"],
                package=re.compile(row["package"]),
            )
            for name, row in table.items()
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError, re.error) as error:
        raise LabError(f"{path.name} is not a kernel catalogue: {error!r}") from error
    for row in rows:
        if "release" not in row.package.groupindex:
            raise LabError(f"{path.name}: the package pattern of {row.name} has no group 'release'")
    return rows


def series(name: str) -> Series | None:
    """The series called `name`, if the catalogue has it."""
    return next((row for row in catalogue() if row.name == name), None)
