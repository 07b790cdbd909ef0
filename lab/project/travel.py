# SPDX-License-Identifier: MIT
"""Which files of a repository travel to a guest."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import UsageError
from .globs import matches, matches_any
from .model import Project

# fmt: off
NEVER = frozenset((
    ".git", ".hg", ".svn", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache",
    ".hypothesis", ".tox", ".nox", "node_modules", "lab-results",
))
# fmt: on
"""Directories that no guest has a use for."""
_BYTECODE = frozenset((".pyc", ".pyo"))
_MIB = 1 << 20
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Traveller:
    """One file that travels."""

    path: PurePosixPath
    """Relative to the root."""
    product: bool
    """Whether it is a build product, whose hash is proved by itself."""


def travellers(project: Project) -> tuple[Traveller, ...]:
    """The files that travel, sorted by their paths."""
    products = {
        path
        for pattern in project.products
        for path in _files_below(project.root, pattern)
        if matches(pattern, path)
    }
    plain = {
        path
        for path in _candidates(project.root)
        if (not project.include or matches_any(project.include, path))
        and not matches_any(project.exclude, path)
    }
    # It has what the guest's pytest is to read.
    plain |= {project.file} if project.file else set()
    return tuple(
        Traveller(PurePosixPath(path), path in products)
        for path in sorted(plain | products, key=PurePosixPath)
        if (project.root / path).is_file()
    )


def travels(project: Project, path: str) -> bool:
    """Whether a file of this name, relative to the root, is not kept from travelling by a key."""
    if matches_any(project.products, path) or path == project.file:
        return True
    wanted = not project.include or matches_any(project.include, path)
    return wanted and not matches_any(project.exclude, path) and _useful(path)


def unmatched(project: Project) -> Iterator[tuple[str, str]]:
    """Key and pattern of each glob that matches nothing."""
    candidates = _candidates(project.root)
    for key in ("include", "exclude"):
        for pattern in getattr(project, key):
            if not any(matches(pattern, path) for path in candidates):
                yield key, pattern
    for pattern in project.products:
        if not any(matches(pattern, path) for path in _files_below(project.root, pattern)):
            yield "products", pattern


def weigh(project: Project, found: Sequence[Traveller], *, most_mib: int) -> None:
    """Raise UsageError, with what is large, when the tree is larger than so many MiB."""
    sizes = {str(one.path): (project.root / one.path).stat().st_size for one in found}
    whole = sum(sizes.values())
    if whole <= most_mib * _MIB:
        return
    large = largest(sizes)
    raise UsageError(
        f"the tree that travels to a guest has {_amount(whole)}, more than the {most_mib} MiB for "
        "which its memory has room; the largest are "
        + ", ".join(f"{name} ({_amount(size)})" for name, size in large),
        hint=f'exclude = ["{large[0][0]}"] in {project.file or "[tool.lab] of pyproject.toml"} '
        "leaves it out, and memory = ... gives the guest more",
    )


def largest(sizes: Mapping[str, int]) -> list[tuple[str, int]]:
    """The largest files, or directories when many files share one, largest first."""
    whole = sum(sizes.values())
    sums: Counter[str] = Counter()
    for path, size in sizes.items():
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            sums["/".join(parts[:depth])] += size
    # A directory that has nearly all because one thing in it has is not the one to name.
    telling = {
        name: size
        for name, size in sums.items()
        if not any(
            below.startswith(f"{name}/") and 10 * other >= 9 * size
            for below, other in sums.items()
            if other >= whole // 20
        )
    }
    found: list[tuple[str, int]] = []
    for name, size in sorted(telling.items(), key=lambda item: (-item[1], item[0])):
        if len(found) == _SHOWN or size < whole // 20:
            break
        if not any(name.startswith(f"{above}/") for above, _ in found):
            found.append((name, size))
    return found or sorted(sizes.items(), key=lambda item: -item[1])[:1]


def _amount(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / _MIB:.0f} MiB"


def _candidates(root: Path) -> list[str]:
    """What travels unless a key says otherwise: what git knows and does not ignore, submodules
    included; without git, or where git knows nothing, all files."""
    found = _of_git(root)
    if not found:
        found = list(_walk(root, root))
    return [one for path in found for one in _linked(root, path) if _useful(one)]


def _linked(root: Path, path: str) -> Iterator[str]:
    """The path; for a link to a directory, what is in that, by the link's name. A link to a
    directory that it is in itself leads to nothing."""
    place = root / path
    if not (place.is_symlink() and place.is_dir()):
        yield path
        return
    target = place.resolve()
    if not place.parent.resolve().is_relative_to(target):
        for below in _walk(target, target):
            if not (target / below).is_dir():
                yield f"{path}/{below}"


def _useful(path: str) -> bool:
    parts = PurePosixPath(path)
    return NEVER.isdisjoint(parts.parts[:-1]) and parts.suffix not in _BYTECODE


def _of_git(root: Path) -> list[str]:
    found: list[str] = []
    for which in (("--cached", "--recurse-submodules"), ("--others", "--exclude-standard")):
        try:
            done = subprocess.run(
                ["git", "-C", os.fspath(root), "ls-files", "-z", *which],
                capture_output=True,
                timeout=60,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return []  # no git, no repository, or not ours: all files travel
        found += [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]
    return found


def _files_below(root: Path, pattern: str) -> Iterator[str]:
    """All files, ignored or not, below the part of a pattern that is no glob."""
    parts: list[str] = []
    for part in PurePosixPath(pattern).parts:
        if any(letter in part for letter in "*?["):
            break
        parts.append(part)
    top = root.joinpath(*parts)
    if top.is_file():
        yield "/".join(parts)
    else:
        yield from _walk(root, top)


def _walk(root: Path, top: Path) -> Iterator[str]:
    for directory, names, files in os.walk(top):
        here = Path(directory)
        names[:] = sorted(
            name
            for name in names
            if name not in NEVER and not (here / name / "pyvenv.cfg").is_file()
        )
        below = here.relative_to(root)
        files += [name for name in names if (here / name).is_symlink()]
        yield from ((below / name).as_posix() for name in sorted(files))
