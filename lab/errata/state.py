# SPDX-License-Identifier: MIT
"""What was measured so far, on disk, so that a sweep goes on where it was stopped.

An entry counts as long as the reproducers are what they were; each is written as soon as its guest
is done, by rename, so a killed sweep loses one release at the most.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lab.errors import LabError
from lab.kernels import Kernel
from lab.suite.errata import Seen

from .measure import Finding

# What a measurement depends on. Not the whole tree: what else changes says nothing here.
_DECISIVE = (
    "tests/kernel_gated/errata",
    "tests/kernel_gated/rawtools.py",
    "ioxide/_probe/rawring.py",
    "lab/suite/reproduce.py",
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One release and what the reproducers found on it, by erratum."""

    upstream: str
    package: str
    release: str
    findings: Mapping[str, Finding]


class State:
    """The measurements of one file."""

    def __init__(self, path: Path, reproducers: str) -> None:
        self._path, self._reproducers = path, reproducers
        self._entries: dict[str, dict[str, Any]] = {}
        if path.exists():
            try:
                self._entries = json.loads(path.read_text())["releases"]
            except (ValueError, KeyError, TypeError) as error:
                raise LabError(
                    f"{path} is no record of a sweep: {error!r}", hint="remove it to begin anew"
                ) from error

    def get(self, kernel: Kernel, errata: Mapping[str, str]) -> Measured | None:
        """What is known of this kernel; None unless every one of `errata` was decided on it by the
        present reproducers."""
        entry = self._entries.get(_key(kernel))
        if entry is None or entry["reproducers"] != self._reproducers:
            return None
        findings = {
            id: Finding(Seen(f["seen"]) if f["seen"] else None, f["evidence"], f["splat"])
            for id, f in entry["findings"].items()
        }
        if any(id not in findings or findings[id].seen is None for id in errata):
            return None
        kept = {id: findings[id] for id in errata}
        return Measured(kernel.upstream, kernel.package, kernel.release, kept)

    def put(self, measured: Measured) -> None:
        """Record one release, on disk too."""
        self._entries[f"{measured.package} {measured.release}"] = {
            "reproducers": self._reproducers,
            **asdict(measured),
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        fresh.write_text(json.dumps({"releases": self._entries}, indent=1, sort_keys=True) + "\n")
        fresh.replace(self._path)


def _key(kernel: Kernel) -> str:
    return f"{kernel.package} {kernel.release}"


def reproducers_sha256(contents: Mapping[PurePosixPath, bytes]) -> str:
    """A hash of all files that a measurement depends on."""
    whole = hashlib.sha256()
    for path, data in sorted(contents.items()):
        if any(path.is_relative_to(part) for part in _DECISIVE):
            whole.update(f"{path}\0{hashlib.sha256(data).hexdigest()}\n".encode())
    return whole.hexdigest()
