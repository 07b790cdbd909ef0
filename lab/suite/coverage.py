# SPDX-License-Identifier: MIT
"""`--cov`: what pytest-cov measures in guests becomes part of what it measures on the host.

A guest's pytest-cov is given the same sources and writes one data file, which comes home.  It is
put beside the host's with the paths of this machine, under a name that the host's pytest-cov
combines at the end of the session; so reports, `--cov-fail-under` and `.coverage` are its own.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ..remote.process import TREE
from ..remote.tree import OWN
from .left import COVERAGE
from .typed_options import Typed

_OPTION = "cov_"
_IN_GUEST = frozenset(("cov_source", "cov_config", "cov_branch", "cov_context"))
_BY_FILE = ("line_bits", "arc", "tracer")
"""Tables of coverage's data file that have rows for a file, besides `file` itself (coverage 7.17,
"Database schema" in its documentation)."""


def measures(config: pytest.Config) -> bool:
    """Whether pytest-cov measures in this run."""
    wanted: Any = config.getoption("cov_source", None)
    return bool(wanted) and not config.getoption("no_cov")


def on_host(config: pytest.Config, name: str) -> bool:
    """Whether it is an option of pytest-cov that no guest is to be told."""
    if not any(map(config.pluginmanager.hasplugin, ("pytest_cov", "pytest_cov.plugin"))):
        return False
    own = name.startswith(_OPTION) or name in ("no_cov", "no_cov_on_fail")
    return own and not (name in _IN_GUEST and measures(config))


def configuration(config: pytest.Config) -> str:
    """The file that `--cov-config` names, if pytest-cov measures in this run."""
    return str(config.getoption("cov_config", None) or "") if measures(config) else ""


def in_guest(config: pytest.Config, typed: Typed) -> Typed:
    """The option as a guest is told of it: a path is relative to the root of the tree."""
    if typed.name not in ("cov_source", "cov_config") or not typed.values:
        return typed
    path = Path(os.path.normpath(config.invocation_params.dir / typed.values[0]))
    if not typed.values[0] or not path.exists() or not path.is_relative_to(config.rootpath):
        return typed  # the name of a package
    relative = path.relative_to(config.rootpath).as_posix()
    return Typed(typed.name, typed.flag, [relative])


def arguments(config: pytest.Config) -> list[str]:
    """More words for a guest's pytest: it writes no report, and judges nothing by it."""
    return ["--cov-report=", "--cov-fail-under=0"] if measures(config) else []


def environment(config: pytest.Config) -> dict[str, str]:
    """What a guest's pytest finds in its environment."""
    return {"COVERAGE_FILE": f"{TREE}/{COVERAGE}"} if measures(config) else {}


def add(config: pytest.Config, data: Iterable[Path]) -> None:
    """Put these data files of guests where the host's pytest-cov finds them. Raises OSError, and
    sqlite3.Error for what is no data file."""
    controller = getattr(config.pluginmanager.get_plugin("_cov"), "cov_controller", None)
    if controller is None:
        return
    base = Path(controller.topdir, controller.cov.get_option("run:data_file"))
    for number, file in enumerate(data, 1):
        move_paths(file, TREE, config.rootpath)
        file.rename(base.with_name(f"{base.name}.lab-{os.getpid()}-{number}"))


def move_paths(file: Path, tree: str, root: Path) -> None:
    """Have a data file speak of `root` where it spoke of `tree`, and no more of the lab's part."""
    with closing(sqlite3.connect(file)) as database, database:
        lab = f"{tree}/{OWN}/"
        ids = "SELECT id FROM file WHERE substr(path, 1, ?) = ?"
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        for table in _BY_FILE:
            if table in tables:
                database.execute(f"DELETE FROM {table} WHERE file_id IN ({ids})", (len(lab), lab))
        database.execute("DELETE FROM file WHERE substr(path, 1, ?) = ?", (len(lab), lab))
        head = f"{tree}/"
        database.execute(
            "UPDATE file SET path = ? || substr(path, ?) WHERE substr(path, 1, ?) = ?",
            (f"{root}/", len(head) + 1, len(head), head),
        )
