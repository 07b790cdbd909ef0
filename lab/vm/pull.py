# SPDX-License-Identifier: MIT
"""Files of a guest come to this machine.

A guest is not believed: it can name any path, send more than it said, or lead a link anywhere.
Every directory is opened without following links, so whatever is there already or came before,
nothing is written outside the destination; and a link is kept only if it cannot lead out of it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import LabError
from .inguest import pull as in_guest

MOST_BYTES = 1 << 30
MOST_ENTRIES = 100_000
_LONGEST_LINE = 64 << 10
_LATEST = 1 << 40
"""Seconds since 1970, more than any file system keeps."""
_NO_LINKS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def command(path: str, most_bytes: int) -> Sequence[str]:
    """What a guest runs to send what is at `path`."""
    source = Path(in_guest.__file__).read_text()
    return (sys.executable, "-I", "-S", "-B", "-c", source, path, str(most_bytes))


@dataclass(slots=True)
class Pulled:
    """What came."""

    files: int = 0
    bytes: int = 0
    left_out: list[str] = field(default_factory=list)
    """What did not, and why, as "NAME: reason"."""


class Landing:
    """Takes what `command` writes and puts it at `destination`: a file there, or a directory with
    everything below it. Files that are there are replaced, others stay.

    `take` and `finish` raise LabError with a sentence about the guest's `path`.
    """

    def __init__(self, path: str, destination: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self.pulled = Pulled()
        self._path, self._destination = path, destination
        self._most = most_bytes
        self._buffer = bytearray()
        self._entries = 0
        self._ended = False
        self._root = -1
        self._file: BinaryIO | None = None
        self._parent = -1
        self._names = ("", "")
        self._times = 0
        self._left = 0

    def take(self, data: bytes) -> None:
        """More of it."""
        self._buffer += data
        while self._buffer:
            if self._file is not None:
                piece = bytes(self._buffer[: self._left])
                del self._buffer[: len(piece)]
                self._left -= len(piece)
                try:
                    self._file.write(piece)
                    if not self._left:
                        self._close_file()
                except OSError as error:  # no room, say
                    raise self._unwritten(self._names[1], error) from error
                continue
            line, newline, _ = self._buffer.partition(b"\n")
            if not newline:
                if len(self._buffer) > _LONGEST_LINE:
                    raise self._nonsense("a line without an end")
                return
            del self._buffer[: len(line) + 1]
            self._entry(bytes(line))

    def finish(self) -> Pulled:
        """All of it has come."""
        if not self._ended:
            raise LabError(f"{self._path} did not come whole: the guest stopped in the middle")
        return self.pulled

    def close(self) -> None:
        """Leave nothing open, and no half of a file."""
        if self._file is not None:
            with suppress(OSError):  # it may want to write what it could not
                self._file.close()
            with suppress(OSError):
                os.unlink(self._names[0], dir_fd=self._parent)
        self._file = None
        for descriptor in (self._root, self._parent):
            if descriptor >= 0:
                os.close(descriptor)
        self._root = self._parent = -1

    # -- one line ----------------------------------------------------------------------------

    def _entry(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict) or self._ended:
            raise self._nonsense(repr(line[:80]))
        if (why := entry.get("missing")) is not None:
            raise LabError(f"the guest has no {self._path}: {str(why)[:200]}")
        if (size := entry.get("too_large")) is not None:
            raise LabError(
                f"{self._path} holds {size} bytes; at most {self._most} are pulled",
                hint="pull a part of it, or pack it in the guest",
            )
        if (what := entry.get("left_out")) is not None:
            self.pulled.left_out.append(str(what)[:1000])
        elif entry.get("end") is True:
            self._ended = True
        else:
            self._entries += 1
            if self._entries > MOST_ENTRIES:
                raise LabError(f"{self._path} holds more than {MOST_ENTRIES} files")
            try:
                self._make(entry)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise self._nonsense(f"{line[:80]!r} ({error})") from error

    def _make(self, entry: dict[str, Any]) -> None:
        kind, parts = entry["kind"], _parts(entry["name"])
        try:
            if kind == "directory":
                with self._directory(parts, int(entry["mode"])):
                    pass
            elif kind == "file":
                self._open_file(parts, entry)
            elif kind == "link" and parts:
                self._link(parts, str(entry["target"]))
            else:
                raise ValueError("neither a file, a directory nor a link")
        except OSError as error:
            raise self._unwritten(self._destination.joinpath(*parts), error) from error

    def _open_file(self, parts: Sequence[str], entry: dict[str, Any]) -> None:
        size, mode, self._times = int(entry["size"]), int(entry["mode"]), int(entry["mtime"])
        if abs(self._times) > _LATEST:
            raise ValueError("its time is none")
        if size < 0 or self.pulled.bytes + size > self._most:
            raise LabError(f"{self._path} is more than {self._most} bytes, which is more than told")
        if parts:
            with self._directory(parts[:-1]) as directory:
                self._parent = os.dup(directory)
            name = parts[-1]
        else:
            self._parent = os.open(self._destination.parent, os.O_RDONLY | os.O_DIRECTORY)
            name = self._destination.name
        # A name that nobody has, then the right one: what was there is replaced, not written into.
        self._names = f".lab-{os.urandom(8).hex()}", name
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._names[0], flags, mode & 0o777 | 0o600, dir_fd=self._parent)
        self._file = os.fdopen(descriptor, "wb")
        self._left = size
        if not size:
            self._close_file()

    def _close_file(self) -> None:
        assert self._file is not None
        self.pulled.bytes += self._file.tell()
        self.pulled.files += 1
        self._file.flush()
        os.utime(self._file.fileno(), (self._times, self._times))
        self._file.close()
        self._file = None
        made, name = self._names
        try:
            os.replace(made, name, src_dir_fd=self._parent, dst_dir_fd=self._parent)
        except OSError as error:
            with suppress(OSError):
                os.unlink(made, dir_fd=self._parent)
            raise self._unwritten(name, error) from error
        os.close(self._parent)
        self._parent = -1

    def _link(self, parts: Sequence[str], target: str) -> None:
        if not _stays_inside(len(parts) - 1, target):
            self.pulled.left_out.append(
                f"{'/'.join(parts)}: a link to {target}, which is not in {self._path}"
            )
            return
        with self._directory(parts[:-1]) as directory:
            with suppress(FileNotFoundError):
                os.unlink(parts[-1], dir_fd=directory)
            os.symlink(target, parts[-1], dir_fd=directory)

    @contextmanager
    def _directory(self, parts: Sequence[str], mode: int = 0o755) -> Iterator[int]:
        """A directory below the destination, made if missing; no link is followed on the way."""
        if self._root < 0:
            with suppress(FileExistsError):
                self._destination.mkdir(mode=mode & 0o777 | 0o700)
            self._root = os.open(self._destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        here = os.dup(self._root)
        try:
            for name in parts:
                with suppress(FileExistsError):
                    os.mkdir(name, mode & 0o777 | 0o700, dir_fd=here)
                below = os.open(name, _NO_LINKS, dir_fd=here)
                os.close(here)
                here = below
            yield here
        finally:
            os.close(here)

    def _unwritten(self, place: object, error: OSError) -> LabError:
        return LabError(f"{place} cannot be written: {os.strerror(error.errno or 0)}")

    def _nonsense(self, what: str) -> LabError:
        return LabError(f"the guest sent {what} where a part of {self._path} was due")


def _parts(name: object) -> Sequence[str]:
    """The names on the way to an entry. Raises ValueError for one that leads anywhere else."""
    if not isinstance(name, str):
        raise ValueError("its name is no text")
    if not name:
        return ()
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise ValueError(f"{name!r} is no name in a directory")
    return parts


def _stays_inside(depth: int, target: str) -> bool:
    """Whether a link so many directories deep leads nowhere else, whatever other links there are
    that this holds for: upward only at its beginning, and no further than the top."""
    parts = [part for part in target.split("/") if part not in ("", ".")]
    up = 0
    while up < len(parts) and parts[up] == "..":
        up += 1
    return bool(target) and not target.startswith("/") and up <= depth and ".." not in parts[up:]
