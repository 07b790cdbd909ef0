# SPDX-License-Identifier: MIT
"""What the table names must be there, before anything is fetched or boots."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from ..errors import COMMAND, UsageError
from .model import Project
from .positions import Path as Keys
from .positions import lines_of
from .reader import PYPROJECT
from .travel import unmatched


def check(project: Project) -> None:
    """Raise UsageError with a sentence for each thing that the table names and that is not there:
    a glob that matches nothing, a build product, a file, a plugin."""
    if not project.file:
        return
    above = ("tool", "lab") if project.file == PYPROJECT else ()
    faults = list(_faults(project))
    if not faults:
        return
    lines = lines_of(project.path(project.file).read_text(encoding="utf-8"))
    told = [f"{project.file}:{lines.get((*above, *keys), 1)}: {what}" for keys, what in faults]
    raise UsageError("\n".join(told))


def _faults(project: Project) -> Iterator[tuple[Keys, str]]:
    for key, pattern in unmatched(project):
        if key == "products":
            yield (key,), f"there is no build product {pattern}: build it first"
        else:
            yield (
                (key,),
                f"{key}: {pattern} matches no file that git knows or would add: paths are relative "
                "to the repository's root, and what git ignores is named in products",
            )
    for key in ("contract", "issues", "dmesg-allow", "lock"):
        name = getattr(project, key.replace("-", "_"))
        if name and not project.path(name).is_file():
            hint = f"; `{COMMAND} kernels update` writes it" if key == "lock" else ""
            yield (key,), f"{key}: there is no file {name}{hint}"
    if project.errata is not None:
        if not project.path(project.errata.list).is_file():
            yield ("errata", "list"), f"errata: there is no file {project.errata.list}"
        if not project.path(project.errata.reproducers).is_dir():
            yield (
                ("errata", "reproducers"),
                f"errata: there is no directory {project.errata.reproducers}",
            )
    for number, program in enumerate(project.programs):
        if program.directory and not project.path(program.directory).is_dir():
            keys: Keys = ("programs", number, "directory")
            yield keys, f"program {program.name}: there is no directory {program.directory}"
    for name in project.environment_exclude:
        if not any(_is_package(name, directory) for directory in _environment()):
            places = " or ".join(map(str, _environment()))
            yield (
                ("environment-exclude",),
                f"environment-exclude: there is no package {name} in {places}",
            )
    if project.plugins:
        installed = {one.name for one in importlib.metadata.entry_points(group="pytest11")}
        for name in project.plugins:
            if name not in installed and not _importable(project, name):
                yield (
                    ("plugins",),
                    f"the plugin {name} is not installed in the environment of {sys.executable}; "
                    "install it there, or take it out of the list",
                )


def _environment() -> list[Path]:
    """Where this Python's packages are."""
    return list(dict.fromkeys(Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")))


def _is_package(name: str, directory: Path) -> bool:
    """Whether something there is left out by that name, as in lab.vm.rootfs."""
    return any(
        path.name == name or path.name.startswith(f"{name}-") for path in directory.iterdir()
    )


def _importable(project: Project, name: str) -> bool:
    """Whether it is a module of the environment or of the repository."""
    try:
        if importlib.util.find_spec(name) is not None:
            return True
    except (ImportError, ValueError):
        pass
    place = name.replace(".", "/")
    return any(
        project.path(f"{top}{place}{end}").is_file()
        for top in ("", "src/")
        for end in (".py", "/__init__.py")
    )
