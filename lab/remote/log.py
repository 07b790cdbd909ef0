# SPDX-License-Identifier: MIT
"""A file of a run that grows while tests run."""

from __future__ import annotations

from pathlib import Path

from ..facts.evidence import Part


class Log:
    """What cannot be written is remembered and not raised: a full disk takes no verdict away."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failed = ""
        """Why something is missing in the file; empty if nothing is."""

    def append(self, data: bytes) -> Part | None:
        """Write behind what is there; where that is, None if it could not be written."""
        try:
            with self.path.open("ab") as file:
                begin = file.tell()
                file.write(data)
        except OSError as error:
            self.failed = self.failed or f"{self.path.name}: {error.strerror}"
            return None
        return Part(self.path, begin, begin + len(data))
