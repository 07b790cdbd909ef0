# SPDX-License-Identifier: MIT
"""The package as others get it: the source distribution builds, and its types are seen."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
SECONDS = 280
BUILT = {"_native.c"}  # by cffi, of the other sources


def run(*command: str, cwd: Path) -> str:
    """What a program printed; fails with it unless the program ended with 0."""
    # What this tree is imported by must not help the package.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**environment, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    assert 0 == done.returncode, done.stdout
    return done.stdout


def sources() -> set[str]:
    """Every file of ioxide/ that somebody has written."""
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "ioxide").rglob("*")
        if path.is_file() and path.suffix not in (".so", ".pyc", ".o") and path.name not in BUILT
    }
    assert "ioxide/_ring/probe.cdef" in found
    return found


@pytest.fixture
def sdist(tmp_path: Path) -> Path:
    """The source distribution of this tree."""
    base = ["egg_info", "--egg-base", str(tmp_path)]
    run(sys.executable, "setup.py", "-q", *base, "sdist", "--dist-dir", str(tmp_path), cwd=ROOT)
    (made,) = tmp_path.glob("ioxide-*.tar.gz")
    return made


def test_the_source_distribution_is_whole(sdist: Path) -> None:
    """Every source of the package is in it, and what builds it."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert set() == (sources() | {"setup.py", "pyproject.toml", "LICENSE", "README.md"}) - names


PROGRAM = """
import ioxide

async def handler(conn: ioxide.Connection) -> None:
    while data := await conn.recv():
        conn.write(data)

async def main() -> int:
    return 42

reveal_type(ioxide.run(main()))
with ioxide.Server(handler, ioxide.ServerConfig(port=0)) as server:
    reveal_type(server.stats().accepts)
    server.reactors[0].post(print, "posted")
"""

ERRATA = """
import pathlib
import ioxide
from ioxide import errata
from ioxide._errata import every
print(pathlib.Path(ioxide.__file__).parents[1])
shipped = errata.shipped()
assert {one.id for one in shipped.errata} == set(every.REPRODUCERS), "not each has its reproducer"
assert shipped.releases, "no release was measured"
print(*(one.id for one in shipped.errata), sep="\\n")
"""


@pytest.mark.slow
def test_a_wheel_of_it_works_and_is_typed(sdist: Path, tmp_path: Path) -> None:
    """A wheel built from it has the extension and what describes it to mypy, and serves."""
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", str(tmp_path), str(sdist), cwd=tmp_path)
    (wheel,) = tmp_path.glob("ioxide-*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
        names = set(archive.namelist())
    assert {"ioxide/py.typed", "ioxide/_ring/_core.pyi", "ioxide/_ring/_native.pyi"} <= names
    assert [] == [name for name in names if name.startswith(("lab/", "tests/", "bench/"))]
    assert any(name.startswith("ioxide/_ring/_native.") and name.endswith(".so") for name in names)
    written = {source for source in sources() if source.startswith("ioxide/_errata/")}
    assert "ioxide/_errata/table.json" in written
    assert set() == written - names

    user = installed / "user.py"
    user.write_text(PROGRAM)
    said = run(sys.executable, "-m", "mypy", "--strict", "--config-file=", "user.py", cwd=installed)
    assert 2 == said.count('Revealed type is "int"')
    assert "Success" in said
    user.write_text(PROGRAM.replace("reveal_type", "print").replace("42", "sum(range(4))"))
    assert ["6", "0", "posted"] == run(sys.executable, "user.py", cwd=installed).split()

    # The table of errata answers from where it was put, and has the reproducers that it names.
    user.write_text(ERRATA)
    shipped = json.loads((ROOT / "docs/errata.json").read_text())
    ids = [erratum["id"] for erratum in shipped["errata"]]
    assert [str(installed), *ids] == run(sys.executable, "user.py", cwd=installed).split()
    one = run(sys.executable, "-m", "ioxide", "errata", "check", "6.12.57", cwd=installed)
    assert ids[0] in one


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        ("echo 2.7; echo old; echo Traceback >&2", "it is 2.7, and pyproject.toml says requires-"),
        ("echo Traceback >&2; exit 1", "it does not run; name another one"),
        ("cat", "it does not run; name another one"),
    ],
    ids=["too old", "does not run", "no Python"],
)
def test_set_up_with_another_python_is_a_sentence(
    program: str, sentence: str, tmp_path: Path
) -> None:
    """A Python that cannot be used is refused in one line, and nothing is made for it."""
    python = tmp_path / "it"
    python.write_text(f"#!/bin/sh\n{program}\n")
    python.chmod(0o755)
    done = subprocess.run(
        ["tools/setup", str(python), ".venv-never"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    assert 1 == done.returncode
    (line,) = done.stdout.splitlines()
    assert line.startswith("set-up: ")
    assert sentence in line
    assert not (ROOT / ".venv-never").exists()


def test_what_the_sanitizers_leave_out_exists() -> None:
    """A name that is no test any more would leave out nothing, and nobody would be told."""
    names = re.findall(r"(?m)^  (tests/\S+)::(\w+)$", (ROOT / "tools/sanitize").read_text())
    assert len(names) == 2
    for path, name in names:
        assert f"\ndef {name}(" in (ROOT / path).read_text(), f"{path} has no {name}"
