# SPDX-License-Identifier: MIT
"""Other Pythons of this machine, by the names of their programs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path


def _starts(program: str) -> bool:
    try:
        done = subprocess.run([program, "-c", ""], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def _of_pyenv(name: str) -> list[Path]:
    """What pyenv has by that name, the newest last."""
    if shutil.which("pyenv") is None:
        return []
    asked = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=False)
    found = Path(asked.stdout.strip()).glob(f"versions/*/bin/{name}")
    return sorted(found, key=lambda path: [*map(int, re.findall(r"\d+", path.parts[-3]))])


def found(name: str) -> str | None:
    """A Python that starts: from PATH, or else the newest one of pyenv.

    pyenv puts a program for each name of its versions into PATH, and it starts none unless that
    version was made current.
    """
    program = shutil.which(name)
    if program is not None and _starts(program):
        return program
    return next((str(path) for path in reversed(_of_pyenv(name)) if _starts(str(path))), None)
