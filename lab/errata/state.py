# SPDX-License-Identifier: MIT
"""What was measured so far, on disk, so that a sweep goes on where it was stopped.

A finding counts as long as the program that made it is what it was; each release is written as soon
as its guest is done, by rename, so a killed sweep loses one release at the most.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..errors import LabError
from ..facts.errata import Finding, Measured, Seen
from ..facts.kernel import Kernel


class State:
    """The measurements of one file; `programs` are those of the errata now, see `program`."""

    def __init__(self, path: Path, programs: Mapping[str, str]) -> None:
        self._path, self._programs = path, programs
        self._entries: dict[str, dict[str, Any]] = {}
        if path.exists():
            try:
                self._entries = json.loads(path.read_text())["releases"]
            except (ValueError, KeyError, TypeError) as error:
                raise LabError(
                    f"{path} is no record of a sweep: {error!r}", hint="remove it to begin anew"
                ) from error

    def known(self, kernel: Kernel) -> dict[str, Finding]:
        """What was decided on this kernel by the programs of now, by erratum."""
        return self._known(_key(kernel.package, kernel.release))

    def with_words(self, row: Measured) -> Measured:
        """This row of the table with the words of those findings that were measured here and say
        the same."""
        known = self._known(_key(row.package, row.release))
        return replace(
            row,
            findings={
                id: known[id] if id in known and known[id].seen is finding.seen else finding
                for id, finding in row.findings.items()
            },
        )

    def _known(self, key: str) -> dict[str, Finding]:
        entry = self._entries.get(key, {"findings": {}})
        return {
            id: Finding(Seen(f["seen"]), f["evidence"], tuple(f["splats"]))
            for id, f in entry["findings"].items()
            if f["seen"]
            and "splats" in f
            and id in self._programs
            and f.get("program") == self._programs[id]
        }

    def complaints(self, kernel: Kernel) -> tuple[str, ...]:
        """What this kernel complained of while no reproducer ran."""
        entry = self._entries.get(_key(kernel.package, kernel.release), {})
        return tuple(entry.get("complaints", ()))

    def whole(self, kernel: Kernel) -> bool:
        """Whether every erratum is decided on this kernel."""
        return self._programs.keys() <= self.known(kernel).keys()

    def begun(self, kernel: Kernel) -> bool:
        """Whether something was measured on this kernel, but not everything by the programs of
        now."""
        return _key(kernel.package, kernel.release) in self._entries and not self.whole(kernel)

    def put(self, measured: Measured) -> None:
        """Record one release, on disk too."""
        entry = asdict(measured)
        for id, finding in entry["findings"].items():
            finding["program"] = self._programs[id]
        self._entries[_key(measured.package, measured.release)] = entry
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        fresh.write_text(json.dumps({"releases": self._entries}, indent=1, sort_keys=True) + "\n")
        fresh.replace(self._path)


def _key(package: str, release: str) -> str:
    return f"{package} {release}"
