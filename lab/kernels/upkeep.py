# SPDX-License-Identifier: MIT
"""Looking after the cache: is everything in it still what was put there, and what may go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .. import cache
from . import store

DAY_S = 86400.0
BUILD = "build"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing in the cache that stands or goes as a whole."""

    kind: str
    """"package", "kernel", "image" or "build": sources and object files."""
    place: Path
    lock: str
    """Name of the lock its makers hold."""
    note: Path | None = None
    """A file beside it that goes with it."""

    @property
    def name(self) -> str:
        """What it is called in the cache."""
        return self.place.name

    def size(self) -> int:
        """Bytes on disk; 0 if another run is just taking it away."""
        files = self.place.rglob("*") if self.place.is_dir() else (self.place,)
        with suppress(FileNotFoundError):
            return sum(f.lstat().st_size for f in files if f.is_file() or f.is_symlink())
        return 0

    def last_used(self) -> float:
        """When it was last handed out, in seconds since the epoch."""
        if self.kind == BUILD:
            mark = self.place / "place"
        else:
            mark = self.note or (
                self.place / store.MANIFEST if self.kind == "kernel" else self.place
            )
        try:
            return mark.stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def fault(self) -> str:
        """What is wrong with it, empty if nothing."""
        match self.kind:
            case "kernel":
                return store.fault_of(self.place)
            case "package":
                expected = self.place.parent.name
            case _:
                expected = self.note.read_text() if self.note else ""
        return "" if cache.digest(self.place) == expected else "it is not what was put there"

    def remove(self) -> None:
        """Take it out of the cache; a guest that runs on an image has it open and goes on."""
        if self.note is not None:
            self.note.unlink(missing_ok=True)
        cache.remove(self.place.parent if self.kind == "package" else self.place)


def entries() -> Iterator[Entry]:
    """Everything in the cache that takes up room."""
    root = cache.root()
    for path in sorted(root.glob("packages/*/*")):
        yield Entry("package", path, cache.package_lock(path.parent.name))
    for path in sorted(root.glob("kernels/*")):
        yield Entry("kernel", path, cache.kernel_lock(path.name.rpartition("-")[0]))
    for path in sorted(root.glob("building/*")):
        yield Entry(BUILD, path, cache.build_lock(path.name))
    for path in sorted(root.glob("images/*")):
        if path.suffix != ".sha256":
            note = path.with_name(path.name + ".sha256")
            yield Entry("image", path, path.name, note)


def verify(
    some: Iterable[Entry], begun: Callable[[Entry], None] = lambda _: None
) -> Iterator[tuple[Entry, str]]:
    """Hash these again. Yields each entry with what is wrong with it, mostly nothing; one that is
    not what was put there is removed, so that the next use fetches or makes it anew."""
    for entry in some:
        if entry.kind == BUILD:  # make looks after it
            continue
        begun(entry)
        with cache.locked(entry.lock):
            if not entry.place.exists():  # somebody else has just replaced it
                continue
            if entry.note is not None and not entry.note.exists():
                entry.remove()  # a run was killed before it was whole; nobody has ever used it
                continue
            fault = entry.fault()
            if fault:
                entry.remove()
        yield entry, fault


def prune(*, older_than_s: float | None, at_most: int | None) -> Iterator[tuple[Entry, int]]:
    """Remove what was not used for `older_than_s` seconds, then, longest unused first, until
    `at_most` bytes are left. Yields each entry removed and the bytes it took."""
    found = sorted(((e.last_used(), e.size(), e) for e in entries()), key=lambda row: row[0])
    total = sum(size for _, size, _ in found)
    now = time.time()
    for used, size, entry in found:
        old = older_than_s is not None and now - used > older_than_s
        if old or (at_most is not None and total > at_most):
            with cache.locked(entry.lock):
                if entry.last_used() > used:  # by a run that held the lock until now
                    continue
                entry.remove()
            total -= size
            yield entry, size
