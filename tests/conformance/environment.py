# SPDX-License-Identifier: MIT
"""An environment with pinned packages, and the sources of those whose tests are run."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REQUIREMENTS = HERE / "requirements.txt"


class SetUpError(Exception):
    """The environment cannot be had; the message says what to do."""


def _call(argv: Sequence[str | Path], what: str) -> None:
    done = subprocess.run(
        argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        raise SetUpError(
            f"{what} failed:\n{done.stdout.decode(errors='replace')[-3000:]}\n"
            "It takes a package index that pip can reach; run make conformance again when it can."
        )


def pinned(name: str) -> str:
    """``name==version`` of a package, as the requirements have it."""
    for line in REQUIREMENTS.read_text().splitlines():
        if line.lower().startswith(f"{name.lower()}=="):
            return line.strip()
    raise SetUpError(f"{REQUIREMENTS.relative_to(ROOT)} does not pin {name}: add it there")


class Environment:
    """A virtual environment of this very Python beside the project's own."""

    def __init__(self) -> None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        self.directory = ROOT / f".venv-conformance-{version}"
        self.python = self.directory / "bin" / "python"
        self._sources = self.directory / "sources"

    def make(self) -> None:
        """Make it, or find it as it has to be; raises `SetUpError`."""
        key = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
        state = self.directory / "made-for"
        if state.exists() and state.read_text() == key:
            return
        print(f"conformance: making {self.directory.name}", flush=True)
        _call((sys.executable, "-m", "venv", "--clear", self.directory), "python -m venv")
        pip = (self.python, "-m", "pip", "--quiet", "--disable-pip-version-check")
        _call((*pip, "install", "-r", REQUIREMENTS), "pip install")
        state.write_text(key)

    def source(self, name: str) -> Path:
        """The unpacked source distribution of a pinned package; raises `SetUpError`."""
        requirement = pinned(name)
        wanted = self._sources / requirement.replace("==", "-")
        if not wanted.is_dir():
            pip = (self.python, "-m", "pip", "--quiet", "--disable-pip-version-check", "download")
            options = ("--no-deps", "--no-binary", ":all:", "--no-build-isolation")
            _call((*pip, *options, "--dest", self._sources, requirement), "pip download")
            (archive,) = self._sources.glob(f"{wanted.name}.tar.gz")
            with tarfile.open(archive) as tar:
                tar.extractall(self._sources, filter="data")
        return wanted
