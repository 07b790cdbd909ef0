# SPDX-License-Identifier: MIT
"""`--dump`: the memory of a guest whose test hung, or whose kernel complained or died."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LabError

if TYPE_CHECKING:
    from ..vm import Guest

FLAG = "--dump"


def dumped(guest: Guest, base: Path) -> str:
    """Write the memory of a guest into a file beside its console: a clause that names the file, by
    its path from the directory `base`, or says why there is none."""
    file = unused(guest.console.parent, "memory", ".core")
    try:
        if guest.hypervisor is None:
            raise LabError("nobody can look into this guest from outside")
        guest.hypervisor.dump(file)
    except LabError as error:
        return f"its memory could not be dumped: {error}"
    return f"{named(file, base)} has its memory"


def named(file: Path, base: Path) -> str:
    """A file's path from a directory that it is in."""
    return file.relative_to(base).as_posix() if file.is_relative_to(base) else file.name


def unused(directory: Path, name: str, suffix: str) -> Path:
    """A new file's name, NAME-1 and so on."""
    number = 1
    while (file := directory / f"{name}-{number}{suffix}").exists():
        number += 1
    return file
