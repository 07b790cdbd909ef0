# SPDX-License-Identifier: MIT
"""Reads `[tool.lab]` of pyproject.toml, or lab.toml: every fault at once, each with its line."""

from __future__ import annotations

import tomllib
from pathlib import Path

from ..errors import UsageError
from .model import Project
from .table import Faults, project_of

PYPROJECT, LAB = "pyproject.toml", "lab.toml"


def find(start: Path) -> Path:
    """The root of the repository that a directory is in: the nearest directory above with a table,
    else with a `.git`; itself if there is neither."""
    start = start.resolve()
    above = (start, *start.parents)
    for directory in above:
        if (directory / LAB).is_file():
            return directory
        try:
            text = (directory / PYPROJECT).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if "[tool.lab]" in text:
            return directory
    return next((one for one in above if (one / ".git").exists()), start)


def here() -> Project:
    """What the repository asks of the lab that this process was started in. Raises UsageError."""
    return read(find(Path.cwd()))


def read(root: Path) -> Project:
    """What the repository at `root` asks of the lab; a `Project` of defaults if it has no table.

    Raises UsageError for two tables, for a file that is no TOML, and, all at once, for unknown keys
    and wrong values.
    """
    root = root.resolve()
    texts = {name: _text(root / name) for name in (PYPROJECT, LAB)}
    tables = {name: tomllib.loads(text) for name, text in texts.items()}
    tool = tables[PYPROJECT].get("tool", {})
    in_pyproject = isinstance(tool, dict) and "lab" in tool
    if in_pyproject and texts[LAB]:
        raise UsageError(
            f"{root} has [tool.lab] in {PYPROJECT} and a {LAB}",
            hint="keep one of them: a lab.toml is for what is no Python project",
        )
    above: tuple[str, ...]
    if in_pyproject:
        name, table, above = PYPROJECT, tool["lab"], ("tool", "lab")
    elif texts[LAB]:
        name, table, above = LAB, tables[LAB], ()
    else:
        return Project(root)
    faults = Faults(name, texts[name], above)
    project = project_of(root, name, table, faults)
    faults.complain()
    return project


def _text(path: Path) -> str:
    """The file's text, known to be TOML; empty if there is no such file. Raises UsageError."""
    try:
        text = path.read_text(encoding="utf-8")
        tomllib.loads(text)
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    # A lab.toml with nothing in it is one all the same; its missing key is said.
    return text or "\n"
