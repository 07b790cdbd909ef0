# SPDX-License-Identifier: MIT
"""The lab's cache on disk: whole entries or none, shared by runs side by side.

An entry is built in a scratch directory beside its place and renamed into it, so nobody ever sees
half of one. A scratch directory is locked as long as its maker lives; what a killed run left is
unlocked and goes at the next build. The directory is `$LAB_CACHE`, else `kernel-lab` below
`$XDG_CACHE_HOME` or `~/.cache`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import LabError

BYTECODE_DAYS = 30
"""So long what Python has compiled for a repository is kept without a run of it."""


def root() -> Path:
    """The cache directory, made if missing."""
    if named := os.environ.get("LAB_CACHE"):
        directory = Path(named)
    else:
        xdg = os.environ.get("XDG_CACHE_HOME", "")
        # The XDG base directory specification tells us to ignore a relative path.
        directory = (Path(xdg) if xdg.startswith("/") else _home() / ".cache") / "kernel-lab"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # Not by access(2), which does not know of a file system that is mounted read-only.
        for name in ("locks", "scratch"):
            (directory / name).mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=directory / "scratch"):
            pass
    except OSError as error:
        raise LabError(
            f"the cache directory {directory} cannot be written: {error.strerror}",
            hint="name another one in LAB_CACHE",
        ) from error
    return directory.absolute()


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:  # no HOME, and no line for this user in /etc/passwd
        raise LabError(
            "there is no home directory to keep the lab's cache in",
            hint="name a directory in LAB_CACHE, or set HOME",
        ) from error


def digest(path: Path) -> str:
    """The file's sha256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(name: str, *, waiting: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Hold the lock `name`; others who want it wait, and `waiting` is called where that is so. A
    dead holder's lock is free at once.

    Yields the lock's descriptor: whatever inherits it holds the lock, too.
    """
    directory = root() / "locks"
    descriptor = os.open(directory / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def scratch() -> Iterator[Path]:
    """A private directory on the cache's own file system, gone when the block is left."""
    directory = root() / "scratch"
    with locked("scratch"):
        _sweep(directory)
        path = Path(tempfile.mkdtemp(dir=directory))
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield path
    finally:
        remove(path)
        os.close(descriptor)


def bytecode_of(repository: Path) -> Path:
    """The directory of what Python compiles in runs of that repository, made if missing. Those of
    repositories that had no run for a month are removed."""
    name = hashlib.sha256(os.fsencode(repository.resolve())).hexdigest()[:16]
    place = root() / "bytecode" / name
    with locked("bytecode"):
        place.mkdir(parents=True, exist_ok=True)
        os.utime(place)
        oldest = time.time() - BYTECODE_DAYS * 86_400
        for other in place.parent.iterdir():
            if other.stat().st_mtime < oldest:
                remove(other)
    return place


def package_lock(sha256: str) -> str:
    """The name of the lock that whoever fetches, reads or removes a package holds."""
    return f"package-{sha256}"


def kernel_lock(release: str) -> str:
    """The name of the lock that whoever unpacks or removes a kernel holds.

    Who needs the lock of a package as well takes this one first.
    """
    return f"kernel-{release}"


def build_lock(name: str) -> str:
    """The name of the lock that whoever builds a kernel in that workshop, or removes it, holds."""
    return f"building-{name}"


def _sweep(directory: Path) -> None:
    """Remove what dead runs left in `directory`; called with the lock `scratch` held."""
    for path in directory.iterdir():
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            remove(path)
        finally:
            os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or tree that may be gone already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def publish(made: Path, place: Path) -> None:
    """Move a finished file or directory to its place, replacing what is there.

    Call it with a lock on `place` held; readers see the old entry or the new one, and for a
    directory possibly none for a moment.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir() and not place.is_symlink():
        # rename(2) replaces a directory only when the old one is empty: move it out of the way.
        old = made.with_name(made.name + ".old")
        place.rename(old)
        made.rename(place)
        remove(old)
    else:
        made.rename(place)
