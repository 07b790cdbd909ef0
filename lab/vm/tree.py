# SPDX-License-Identifier: MIT
"""A directory that becomes a root image: files of the host at the same paths."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from .. import tools
from ..errors import LabError


class Tree:
    """A root file system in the making, below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[Path, Path] = {}

    def place(self, path: str | Path) -> Path:
        """Where the host's `path` is below the root. Its directories are made; where the host
        has a link (/lib on a merged-/usr system), so has the tree."""
        wanted = Path(path)
        return self._directory(wanted.parent) / wanted.name

    def _directory(self, directory: Path) -> Path:
        known = self._known.get(directory)
        if known is not None:
            return known
        if directory == Path("/"):
            return self.root
        made = self._directory(directory.parent) / directory.name
        if directory.is_symlink():
            target = Path(os.path.normpath(directory.parent / directory.readlink()))
            if not made.is_symlink():
                made.symlink_to(directory.readlink())
            made = self._directory(target)
        else:
            made.mkdir(exist_ok=True)
        self._known[directory] = made
        return made

    def directory(self, path: str) -> None:
        """Make a directory and its parents."""
        self._directory(Path(path))

    def write(self, path: str, text: str) -> None:
        """Write a file."""
        self.place(path).write_text(text)

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link, replacing what is there."""
        self.unlink(path)
        self.place(path).symlink_to(target)

    def unlink(self, path: str) -> None:
        """Remove a file, if it is there."""
        self.place(path).unlink(missing_ok=True)

    def add(self, path: Path, *, at: str | None = None) -> None:
        """Take over a file of the host; of a link, the link and what it leads to."""
        place = self.place(path if at is None else at)
        if place.is_symlink() or place.exists():
            return
        if path.is_symlink() and at is None:
            place.symlink_to(path.readlink())
            target = Path(os.path.normpath(path.parent / path.readlink()))
            if target.is_dir():
                self._directory(target)
            elif target.exists():
                self.add(target)
            return
        try:
            # A second name for the file, not a second copy; nothing here ever writes to it.
            place.hardlink_to(path)
        except OSError as error:
            # Another file system, or a file of root's (protected_hardlinks).
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
            shutil.copy2(path, place)

    def compile_python(self, directories: Iterable[Path]) -> None:
        """Write the .pyc files: under emulation, compiling takes longer than any test."""
        code = (
            "import compileall, sys\n"
            "for place, path in zip(sys.argv[1::2], sys.argv[2::2]):\n"
            "    compileall.compile_dir(place, ddir=path, quiet=2, workers=0)\n"
        )
        pairs = [str(p) for d in directories for p in (self._directory(d), d)]
        done = subprocess.run(
            [sys.executable, "-I", "-W", "ignore", "-c", code, *pairs],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise LabError(f"compiling the root image's Python failed: {done.stderr.strip()}")


_ARROW = re.compile(r"=> (/\S+) \(0x|^\s+(/\S+) \(0x", re.MULTILINE)


def shared_libraries(binaries: Sequence[Path], *, by_name: Sequence[str]) -> list[Path]:
    """The files of every shared library `binaries` need, and of those named like "libc.so.6".

    A named library this machine does not have is left out: code that needs it says so itself.
    """
    cache = tools.run(["ldconfig", "-p"], what="reading the dynamic linker's cache")
    named = [
        Path(match[1])
        for name in by_name
        if (match := re.search(rf"^\s+{re.escape(name)} .*=> (\S+)$", cache, re.MULTILINE))
    ]
    found: dict[Path, None] = dict.fromkeys(named)
    # ldd fails for a static or broken file among many and still answers for the others.
    done = subprocess.run(
        [str(tools.find("ldd")), *map(str, [*binaries, *named])],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    for match in _ARROW.finditer(done.stdout):
        found.setdefault(Path(match[1] or match[2]))
    return list(found)
