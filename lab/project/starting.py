# SPDX-License-Identifier: MIT
"""The table that a repository begins with, by what is in it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..errors import UsageError
from .reader import LAB, PYPROJECT, read
from .travel import NEVER

KERNELS = ("6.1", "6.12")
"""Debian's releases 12 and 13 have these."""
_PYTHON = (PYPROJECT, "setup.py", "setup.cfg")


def write_table(root: Path) -> tuple[Path, str]:
    """Write the table, at the end of pyproject.toml or as a lab.toml; the file and what was added.

    Raises UsageError if there is one.
    """
    project = read(root)
    if project.file:
        raise UsageError(f"{project.root / project.file} has a table for the lab already")
    python = any((root / name).is_file() for name in _PYTHON)
    place = root / (PYPROJECT if python else LAB)
    text = table(root, heading="[tool.lab]\n" if python else "")
    before = place.read_text(encoding="utf-8") if place.is_file() else ""
    gap = "" if not before else "\n" if before.endswith("\n") else "\n\n"
    place.write_text(f"{before}{gap}{text}", encoding="utf-8")
    read(root)  # what was written can be read
    return place, text


def table(root: Path, *, heading: str) -> str:
    """The table's text: kernels, and the build products that git ignores."""
    lines = [f"{heading}kernels = {_list(KERNELS)}\n"]
    if products := tuple(_products(root)):
        lines.append("# git ignores these, and a guest needs them; their hash is proved.\n")
        lines.append(f"products = {_list(products)}\n")
    return "".join(lines)


def _list(values: tuple[str, ...]) -> str:
    quoted = [f'"{value}"' for value in values]
    return f"[{', '.join(quoted)}]"


def _products(root: Path) -> Iterator[str]:
    """Globs of the extension modules that were built in place."""
    command = ["git", "-C", os.fspath(root), "ls-files", "-z", "--others", "--ignored"]
    try:
        done = subprocess.run(
            [*command, "--exclude-standard", "--", "*.so"],
            capture_output=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return
    found = set()
    for name in done.stdout.split(b"\0"):
        path = PurePosixPath(os.fsdecode(name))
        above = [root / parent for parent in path.parents]
        environment = any((directory / "pyvenv.cfg").is_file() for directory in above)
        if not path.name or environment or not NEVER.isdisjoint(path.parts):
            continue
        if path.parts[0] not in ("build", "dist"):
            found.add(f"{path.parent / path.name.split('.')[0]}*.so")
    yield from sorted(found)
