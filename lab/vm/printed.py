# SPDX-License-Identifier: MIT
"""What processes of a guest have written to the port whose words are on the host at once."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


class Printed:
    """The file that QEMU writes them into. It stays when the guest is gone."""

    def __init__(self, file: Path | None) -> None:
        """None if there is no such port."""
        self._file = file

    def forget(self) -> None:
        """From here on only what comes then."""
        if self._file is not None:
            with suppress(OSError):
                os.truncate(self._file, 0)

    def tail(self, most: int) -> bytes:
        """The last bytes of it, so many at most."""
        if self._file is None:
            return b""
        try:
            with self._file.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - most))
                return file.read(most)
        except OSError:
            return b""
