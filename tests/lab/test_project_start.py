# SPDX-License-Identifier: MIT
"""`lab init` and the repository's own lock, from the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab import project
from lab.kernels import lock

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]


def lab(where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`python -m lab WORDS` in a directory."""
    return subprocess.run(
        [sys.executable, "-m", "lab", *words],
        cwd=where,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_init_writes_a_table_that_can_be_read(tmp_path: Path) -> None:
    """What was there stays, and build products that git ignores are named."""
    settings = '[project]\nname = "a"'
    (tmp_path / "pyproject.toml").write_text(settings)
    (tmp_path / ".gitignore").write_text("*.so\n")
    for name in ("src/a/_core.cpython-311.so", "build/x.so", "env/lib/y.so"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "env/pyvenv.cfg").touch()
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)

    done = lab(tmp_path / "src", "init")

    assert (0, "") == (done.returncode, done.stderr)
    assert (tmp_path / "pyproject.toml").read_text().startswith(f"{settings}\n\n[tool.lab]\n")
    found = project.read(tmp_path)
    assert (("6.1", "6.12"), ("src/a/_core*.so",)) == (found.kernels, found.products)
    project.check(found)

    again = lab(tmp_path, "init")
    assert 2 == again.returncode
    assert "pyproject.toml has a table for the lab already" in again.stderr


def test_init_writes_lab_toml_for_what_is_no_python_project(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("all:\n")
    assert 0 == lab(tmp_path, "init").returncode
    assert "lab.toml" == project.read(tmp_path).file


def test_a_file_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    """Whatever the command is."""
    (tmp_path / ".github").touch()
    (tmp_path / "lab.toml").write_text('kernels = ["6.12"]\n')
    done = lab(tmp_path, "init", "--workflow", f"somebody/kernels@{'0' * 40}")
    assert (3, "") == (done.returncode, done.stdout)
    said = f"lab: {tmp_path}/.github/workflows cannot be read or written: Not a directory\n"
    assert said == done.stderr


def test_a_repository_without_a_lock_has_no_locked_kernel(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text('kernels = ["6.12"]\n')
    assert (0, "") == (lab(tmp_path, "kernels", "list", "--locked").returncode, "")
    refused = lab(tmp_path, "kernels", "update")
    assert 2 == refused.returncode
    assert "names no lock (--lock FILE writes one" in refused.stderr


def test_the_lock_that_the_table_names_binds(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text('kernels = ["6.12"]\nlock = "ours.lock"\n')
    text = (ROOT / "tests/kernels/kernels.lock").read_text()
    newest, *_ = lock.read(ROOT / "tests/kernels/kernels.lock")
    (tmp_path / "ours.lock").write_text(lock.render([newest]))
    listed = lab(tmp_path, "kernels", "list", "--locked").stdout
    assert [newest.kernel.release] == [line.split()[2] for line in listed.splitlines()]
    assert newest.kernel.release in text


def test_a_lock_that_is_named_and_not_there_is_no_leave_to_go_without(tmp_path: Path) -> None:
    """Nothing is unlocked for want of a file; only `update`, which writes it, goes on."""
    (tmp_path / "lab.toml").write_text('kernels = ["6.12"]\nlock = "ours.lock"\n')
    listed = lab(tmp_path, "kernels", "list", "--locked")
    assert (2, "") == (listed.returncode, listed.stdout)
    assert "ours.lock, the lock that the table names, is not there" in listed.stderr
    assert "`python -m lab kernels update` writes it" in listed.stderr
    updated = lab(tmp_path, "kernels", "update", "nonsense")
    assert "unknown kernel 'nonsense'" in updated.stderr
