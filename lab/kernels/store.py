# SPDX-License-Identifier: MIT
"""The kernels on this machine: downloaded packages and what was unpacked from them.

`packages/SHA256/NAME` holds a package, `kernels/RELEASE-HASH` what it unpacks to, with the sha256
of every file in `manifest.json`. Both are compared every time a kernel is handed out; a file that
differs is thrown away and fetched or unpacked again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import arch, cache, tools
from ..errors import KernelUnavailable, LabError
from ..facts.kernel import Kernel
from .local import Local
from .model import KernelFiles, Release, RemoteFile
from .source import Source

MANIFEST = "manifest.json"
_LAYOUT = 1
"""Raised when the way an entry is made changes, so that older entries are not taken for new."""


def files_of(
    release: Release, source: Source, *, note: Callable[[str], None] = lambda _: None
) -> KernelFiles:
    """The verified, unpacked files of a release; fetched and unpacked where need be.

    `note` hears what is done, one sentence at a time. Raises what the source's `download` raises,
    and KernelUnavailable when the source delivers other bytes than it promised.
    """
    with cache.locked(cache.kernel_lock(release.kernel.release)), ExitStack() as held:
        release = completed(release, source, note=note)
        place = _place(release)
        # Until they are unpacked: nobody is to prune them meanwhile.
        for sha256 in sorted({file.sha256 for file in release.files}):
            held.enter_context(cache.locked(cache.package_lock(sha256)))
        packages = [_package(file, release.suite, source, note) for file in release.files]
        fault = fault_of(place)
        if fault:
            if place.exists():
                note(f"{release.kernel.release}: {fault}; unpacking it again")
            _unpack(release, source, packages, place)
        os.utime(place / MANIFEST)  # used today: not to be pruned
    return KernelFiles(
        kernel=release.kernel,
        vmlinuz=place / "vmlinuz",
        vmlinux=place / "vmlinux",
        config=place / "config",
        modules=place / "lib/modules" / release.kernel.release,
    )


def completed(
    release: Release, source: Source, *, note: Callable[[str], None] = lambda _: None
) -> Release:
    """The release with size and sha256 of every file.

    What signed metadata does not tell is measured at the first download and kept in `pins/`, so
    that later downloads have to agree with it. Raises what the source's `download` raises.
    """
    if all(file.sha256 for file in release.files):
        return release
    kernel = release.kernel
    place = cache.root() / "pins" / f"{kernel.release}_{kernel.package}.json"
    try:
        pins: dict[str, list[Any]] = json.loads(place.read_text())
    except (FileNotFoundError, ValueError):
        pins = {}
    files = []
    for file in release.files:
        if not file.sha256:
            size, sha256 = pins.get(file.path) or _measure(file, release.suite, source, note)
            pins[file.path] = [size, sha256]
            file = replace(file, size=size, sha256=sha256)
        files.append(file)
    with cache.scratch() as directory:
        made = directory / place.name
        made.write_text(json.dumps(pins, indent=1))
        cache.publish(made, place)
    return replace(release, files=tuple(files))


def _measure(
    file: RemoteFile, suite: str, source: Source, note: Callable[[str], None]
) -> tuple[int, str]:
    """Fetch a file nobody vouches for yet and keep it under what it is."""
    with cache.scratch() as directory:
        fetched = directory / file.name
        note(f"fetching {file.name}")
        source.download(file, fetched, suite=suite)
        size, sha256 = fetched.stat().st_size, cache.digest(fetched)
        # A half of it must never be pinned.
        tools.run(["dpkg-deb", "-x", fetched, directory / "whole"], what=f"reading {file.name}")
        with cache.locked(cache.package_lock(sha256)):
            cache.publish(fetched, cache.root() / "packages" / sha256 / file.name)
    return size, sha256


def cached() -> tuple[str, ...]:
    """The releases whose unpacked files are in the cache, by name."""
    directory = cache.root() / "kernels"
    found = directory.glob(f"*/{MANIFEST}") if directory.is_dir() else ()
    return tuple(sorted(path.parent.name.rpartition("-")[0] for path in found))


def entry_name(release: Release) -> str:
    """What the unpacked files of a release are called in `kernels/` of the cache: `uname -r` and a
    hash over those of its packages, which have to be known."""
    identity = [_LAYOUT, release.kernel.release, *(file.sha256 for file in release.files)]
    if release.kernel.source == Local.name:
        identity.append(release.kernel.package)  # its modules are no file of the release
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    return f"{release.kernel.release}-{key}"


def _place(release: Release) -> Path:
    return cache.root() / "kernels" / entry_name(release)


def _package(file: RemoteFile, suite: str, source: Source, note: Callable[[str], None]) -> Path:
    place = cache.root() / "packages" / file.sha256 / file.name
    if place.exists():
        if _matches(place, file):
            os.utime(place)
            return place
        note(f"{file.name} in the cache is not what it was; fetching it again")
    with cache.scratch() as directory:
        fetched = directory / file.name
        note(f"fetching {file.name} ({file.size / 1e6:.0f} MB)")
        source.download(file, fetched, suite=suite)
        if not _matches(fetched, file):
            raise KernelUnavailable(
                f"{source.name} delivered a {file.name} of {fetched.stat().st_size} bytes with"
                f" sha256 {cache.digest(fetched)}; expected {file.size} bytes with {file.sha256}",
                hint="the mirror or something before it alters files; try another mirror",
            )
        cache.publish(fetched, place)
    return place


def _matches(path: Path, file: RemoteFile) -> bool:
    return path.stat().st_size == file.size and cache.digest(path) == file.sha256


def _unpack(release: Release, source: Source, packages: list[Path], place: Path) -> None:
    with cache.scratch() as directory:
        tree = directory / "tree"
        tree.mkdir()
        source.unpack(packages, release, tree)
        _finish(release.kernel, tree)
        cache.publish(tree, place)


def _finish(kernel: Kernel, tree: Path) -> None:
    image = tree / "vmlinuz"
    (tree / "vmlinux").write_bytes(arch.here().unpacked(image.read_bytes(), image))
    # No Debian package ships modules.dep; kmod reads every packing it was built with. Without a
    # single module (a local kernel with everything built in) it has nothing to say.
    tools.run(["depmod", "-b", tree, kernel.release], what=f"indexing the modules of {kernel}")
    if not (tree / "lib/modules" / kernel.release / "modules.dep").exists():
        raise LabError(f"depmod wrote no modules.dep for {kernel.release}")
    (tree / MANIFEST).write_text(json.dumps({"files": _hashes(tree)}, indent=0, sort_keys=True))


def _hashes(tree: Path) -> dict[str, str]:
    return {
        str(path.relative_to(tree)): cache.digest(path)
        for path in sorted(tree.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.name != MANIFEST
    }


def fault_of(place: Path) -> str:
    """What is wrong with an unpacked entry, empty if nothing."""
    try:
        expected: Mapping[str, str] = json.loads((place / MANIFEST).read_text())["files"]
        actual = _hashes(place)
    except FileNotFoundError:
        return "it is not unpacked yet"
    except (ValueError, KeyError, TypeError, OSError) as error:
        return f"its manifest cannot be read ({error})"
    if actual == expected:
        return ""
    differing = sorted(
        name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name)
    )
    return f"{differing[0]} is not what was unpacked"
