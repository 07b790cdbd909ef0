# SPDX-License-Identifier: MIT
"""Kernels that were built here from sources, see `lab.building`.

`built/KEY.json` in the cache describes one; what was built is a package like any other, a tar of
`vmlinuz`, `config` and `lib/modules/RELEASE`. A package that is gone or is not what it was takes
the kernel with it: it has to be built again.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import cache
from ..errors import COMMAND, LabError
from ..facts.kernel import BUILT, version_key
from . import lock
from .model import Release, RemoteFile
from .source import FileGone, named


@dataclass(frozen=True, slots=True)
class Record:
    """One kernel that was built."""

    key: str
    """A hash over everything it was built from, in hexadecimal."""
    release: Release
    made: float
    """When, in seconds since the epoch."""
    facts: Mapping[str, str]
    """What it was built from, in words, by name."""


class Built:
    """What `lab kernels build` has put into the cache."""

    name = BUILT

    def listing(self, *, fresh: bool = False) -> tuple[Release, ...]:
        """See `Source`; of two of one version the one that was built last comes first."""
        del fresh
        found = sorted(records(), key=lambda one: -one.made)
        found.sort(key=lambda one: version_key(one.release.kernel.upstream), reverse=True)
        return tuple(one.release for one in found)

    def matching(self, wanted: str, *, fresh: bool = False) -> tuple[Release, ...]:
        """See `Source`."""
        return tuple(one for one in self.listing(fresh=fresh) if named(one.kernel, wanted))

    def download(self, file: RemoteFile, into: Path, *, suite: str) -> None:
        """There is nowhere to have it from but the cache, where it no longer is."""
        del into, suite
        raise FileGone(
            f"what was built as {file.name} is no longer whole in the cache: build it"
            f" again with `{COMMAND} kernels build`"
        )

    def unpack(self, packages: Sequence[Path], release: Release, tree: Path) -> None:
        """Unpack what `pack` packed."""
        try:
            with tarfile.open(packages[0]) as archive:
                archive.extractall(tree, filter="data")
        except (OSError, tarfile.TarError) as error:
            raise LabError(f"{packages[0].name} cannot be unpacked: {error}") from error
        modules = tree / "lib/modules" / release.kernel.release
        for path in (tree / "vmlinuz", tree / "config", modules):
            if not path.exists():
                raise LabError(f"{packages[0].name} has no {path.relative_to(tree)}")


def pack(tree: Path, package: Path) -> None:
    """Make the package of a built kernel from `tree`. The same files are the same bytes."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = 0
        return entry

    with tarfile.open(package, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(tree.rglob("*")):
            archive.add(path, str(path.relative_to(tree)), recursive=False, filter=plain)


def place_of(file: RemoteFile) -> Path:
    """Where the package of a built kernel is; see `lab.kernels.store`."""
    return cache.root() / "packages" / file.sha256 / file.name


def record_of(key: str) -> Record | None:
    """What was built under this key, if its package is still there."""
    return _read(cache.root() / "built" / f"{key}.json")


def is_whole(record: Record) -> bool:
    """Whether its package is what was put there."""
    return all(cache.digest(place_of(file)) == file.sha256 for file in record.release.files)


def records() -> list[Record]:
    """Everything that was built and whose package is still there."""
    found = (_read(path) for path in sorted((cache.root() / "built").glob("*.json")))
    return [one for one in found if one is not None]


def keep(key: str, release: Release, package: Path, facts: Mapping[str, str]) -> Record:
    """Put a package that is whole into the cache, and then the record that makes it a kernel."""
    (file,) = release.files
    with cache.locked(cache.package_lock(file.sha256)), cache.scratch() as directory:
        made = directory / file.name
        shutil.move(package, made)
        cache.publish(made, place_of(file))
    record = Record(key, release, time.time(), facts)
    body = {"made": record.made, "facts": dict(facts), "release": lock.entry_of(release)}
    with cache.scratch() as directory:
        written = directory / f"{key}.json"
        written.write_text(json.dumps(body, indent=1))
        cache.publish(written, cache.root() / "built" / written.name)
    return record


def _read(path: Path) -> Record | None:
    """The record in a file; None if it is none, or what it is of has left the cache."""
    try:
        raw: dict[str, Any] = json.loads(path.read_text())
        release = lock.release_of(raw["release"], path.name, locked=False)
        record = Record(path.stem, release, float(raw["made"]), dict(raw["facts"]))
    except (OSError, ValueError, KeyError, TypeError, LabError):
        return None
    return record if all(place_of(file).exists() for file in release.files) else None
