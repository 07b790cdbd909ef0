# SPDX-License-Identifier: MIT
"""A directory as the sources: what is in it, by content.

Every file is hashed once; afterwards its size, times, inode and mode tell whether it is the same,
as in git's index. `ctime` is the kernel's own and nobody can set it.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .. import cache
from ..errors import LabError, UsageError
from . import sources

_LEFT_OUT = frozenset({".git", ".hg"})
"""At the top: what keeps versions is not compiled, and changes without them."""
_GRANULARITY_NS = 2_000_000_000
"""A file that has just been changed when it is looked at may change again and keep its times."""

Stamp = tuple[int, ...]
_Known = Mapping[str, tuple[Stamp, str]]


class DirectoryTree:
    """The sources in a directory, as they are."""

    def __init__(self, directory: Path) -> None:
        """Raises UsageError if there is no kernel that can be built elsewhere."""
        self._directory = directory.absolute()
        if not directory.is_dir():
            raise UsageError(f"--tree {directory} is no directory")
        sources.check(self._directory, f"--tree {directory}")
        self._stamps: dict[str, Stamp] = {}
        self._pinned: dict[str, tuple[Stamp, str]] = {}

    @property
    def place(self) -> str:
        """See `Sources`."""
        return f"tree {self._directory.resolve()}"

    @property
    def origin(self) -> str:
        """See `Sources`."""
        return f"the tree {self._directory}"

    def pin(self, workshop: Path) -> str:
        """See `Sources`."""
        index = workshop / "index.json"
        known, written = _read(index)
        begun = time.time_ns()
        self._stamps = dict(_stamps(self._directory))

        def content(name: str) -> str:
            stamp = self._stamps[name]
            before = known.get(name)
            settled = max(stamp[1], stamp[2]) < written - _GRANULARITY_NS
            if before is not None and before[0] == stamp and settled:
                return before[1]
            path = self._directory / name
            return f"-> {path.readlink()}" if path.is_symlink() else cache.digest(path)

        names = sorted(self._stamps)
        try:
            with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
                contents = dict(zip(names, pool.map(content, names, chunksize=256), strict=True))
        except OSError as error:
            raise LabError(f"{self.origin} cannot be read: {error}") from error
        self._pinned = {name: (self._stamps[name], contents[name]) for name in names}
        _write(index, self._pinned, begun)
        whole = hashlib.sha256()
        for name in names:
            executable = self._stamps[name][-1] & stat.S_IXUSR
            whole.update(
                f"{name}\0{contents[name]}\0{executable}\n".encode("utf-8", "surrogateescape")
            )
        return f"tree {whole.hexdigest()}"

    def lay(self, workshop: Path) -> Path:
        """See `Sources`."""
        del workshop
        return self._directory

    def remember(self, place: Path) -> None:
        """See `Sources`."""
        _write(place, self._pinned, 0)

    def stale(self, place: Path, since_ns: int) -> bool:
        """See `Sources`; a file may have been replaced by one with an older time."""
        before, _ = _read(place)
        for name, (stamp, content) in self._pinned.items():
            same = name in before and before[name][1] == content
            if not same and stamp[1] <= since_ns:
                return True
        return False

    def changed(self) -> str:
        """See `Sources`."""
        now = dict(_stamps(self._directory))
        names = sorted(self._stamps.keys() | now.keys())
        some = [name for name in names if self._stamps.get(name) != now.get(name)]
        if not some:
            return ""
        more = f" and {len(some) - 1} more" if len(some) > 1 else ""
        return f"{self.origin} has changed while it was built: {some[0]}{more}"


def _stamps(directory: Path) -> Iterator[tuple[str, Stamp]]:
    """Every file below a directory: size, mtime, ctime, inode, mode. Raises LabError."""
    stack = [""]
    while stack:
        below = stack.pop()
        try:
            with os.scandir(directory / below) as entries:
                for entry in entries:
                    if not below and entry.name in _LEFT_OUT:
                        continue
                    name = f"{below}/{entry.name}" if below else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(name)
                    elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
                        s = entry.stat(follow_symlinks=False)
                        yield name, (s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_mode)
        except FileNotFoundError:
            if not below:
                raise LabError(f"{directory} is gone") from None
        except OSError as error:
            raise LabError(f"{directory / below} cannot be read: {error.strerror}") from error


def _read(index: Path) -> tuple[_Known, int]:
    """What is known of each file, and when that was begun; nothing if a byte of it has changed."""
    try:
        digest, _, body = index.read_text(errors="surrogateescape").partition("\n")
        if hashlib.sha256(body.encode("utf-8", "surrogateescape")).hexdigest() != digest:
            return {}, 0
        raw = json.loads(body)
        return {name: (tuple(stamp), text) for name, (stamp, text) in raw["files"].items()}, raw[
            "at"
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, 0


def _write(index: Path, files: _Known, at: int) -> None:
    body = json.dumps({"at": at, "files": files})
    digest = hashlib.sha256(body.encode()).hexdigest()
    made = index.with_name(f".{index.name}.{os.getpid()}")
    made.write_text(f"{digest}\n{body}")
    made.replace(index)
