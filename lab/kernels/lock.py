# SPDX-License-Identifier: MIT
"""A repository's lock: the very packages the lab boots, by size and sha256.

The file is TOML, one `[[kernel]]` a release, written so that a diff reads well in a review.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import COMMAND, LabError, UsageError
from ..facts.kernel import Kernel
from .model import Release, RemoteFile, newest_first

LOCK: Path | None = None
"""The lock that binds in this process, set by `use`; None for none: every kernel is unlocked, and
the archive's signature vouches for it."""

_HEAD = f"""\
# SPDX-License-Identifier: MIT
# Which packages the lab boots. Written by `{COMMAND} kernels update`; review the diff.
"""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TEXTS = ("series", "upstream", "package", "release", "source", "suite", "verified_by")


def use(path: Path | None) -> None:
    """From here on this lock binds in this process: the one that a repository's table names."""
    global LOCK  # one process works for one repository
    LOCK = path


def read(path: Path | None = None) -> tuple[Release, ...]:
    """Every locked release, newest first. Raises LabError with the line or entry that is wrong, and
    UsageError for a lock that is named and cannot be read: that it binds nothing is not meant."""
    path = LOCK if path is None else path
    if path is None:
        return ()
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise UsageError(
            f"{path.name}, the lock that the table names, is not there",
            hint=f"`{COMMAND} kernels update` writes it",
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise LabError(f"{path.name} is not TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path.name}, the lock, cannot be read: {error}") from error
    releases = [
        release_of(entry, f"{path.name}, kernel {number}")
        for number, entry in enumerate(table.get("kernel", ()), 1)
    ]
    twice = {r.kernel.release for r in releases if _count(releases, r) > 1}
    if twice:
        raise LabError(f"{path.name} names {', '.join(sorted(twice))} more than once")
    return newest_first(releases)


def _count(releases: list[Release], one: Release) -> int:
    return sum(other.kernel.release == one.kernel.release for other in releases)


def entry_of(release: Release) -> dict[str, object]:
    """A release as the table of the lock that describes it; `release_of` reads it back."""
    texts = {name: getattr(release.kernel, name) for name in _TEXTS if name != "suite"}
    files = [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in release.files]
    return {**texts, "suite": release.suite, "file": files}


def release_of(entry: Mapping[str, Any], where: str, *, locked: bool = True) -> Release:
    """The release that one table describes. Raises LabError with `where` and the wrong value."""
    texts = {name: entry.get(name) for name in _TEXTS}
    for name, value in texts.items():
        if not isinstance(value, str) or not value:
            raise LabError(f"{where}: {name} is {value!r}, expected a text")
    files = tuple(_file(file, where, locked) for file in entry.get("file", ()))
    if not files:
        raise LabError(f"{where} ({texts['release']}): no file is named")
    suite = texts.pop("suite")
    return Release(kernel=Kernel(locked=locked, **texts), suite=str(suite), files=files)  # type: ignore[arg-type]


def _file(entry: Mapping[str, Any], where: str, locked: bool) -> RemoteFile:
    path, size, sha256 = entry.get("path"), entry.get("size"), entry.get("sha256")
    if not isinstance(path, str) or path.startswith("/") or ".." in path.split("/"):
        raise LabError(f"{where}: file path {path!r} is not a relative path")
    if (size, sha256) == (0, "") and not locked:
        return RemoteFile(path=path, size=0, sha256="")
    if not isinstance(size, int) or size <= 0:
        raise LabError(f"{where}: {path} has size {size!r}, expected a positive number of bytes")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise LabError(f"{where}: {path} has sha256 {sha256!r}, expected 64 hexadecimal digits")
    return RemoteFile(path=path, size=size, sha256=sha256)


def render(releases: Iterable[Release]) -> str:
    """The text of a lock file with these releases; `read` gives the same releases back."""
    parts = [_HEAD]
    for release in newest_first(releases):
        kernel = release.kernel
        values = {name: getattr(kernel, name) for name in _TEXTS if name != "suite"}
        values["suite"] = release.suite
        parts.append("[[kernel]]\n" + "".join(f"{n} = {_quoted(values[n])}\n" for n in _TEXTS))
        parts.extend(
            "[[kernel.file]]\n"
            f"path = {_quoted(file.path)}\nsize = {file.size}\nsha256 = {_quoted(file.sha256)}\n"
            for file in release.files
        )
    return "\n".join(parts)


def _quoted(text: str) -> str:
    if any(ord(c) < 32 or c in '"\\' for c in text):
        raise LabError(f"{text!r} cannot stand in a lock file")
    return f'"{text}"'
