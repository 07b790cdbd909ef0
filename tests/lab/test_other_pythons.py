# SPDX-License-Identifier: MIT
"""How other Pythons of a machine are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import pythons


def _program(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


@pytest.fixture(name="path")
def path_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory of PATH."""
    path = tmp_path / "bin"
    path.mkdir()
    monkeypatch.setenv("PATH", str(path))
    return path


def test_a_python_of_path_comes_first(path: Path) -> None:
    program = _program(path / "python3.99", "exit 0")
    assert str(program) == pythons.found("python3.99")


def test_the_newest_of_pyenv_stands_for_a_name_that_starts_none(path: Path, tmp_path: Path) -> None:
    """pyenv's program of that name ends with 127; a version that does not start is passed by."""
    _program(path / "python3.99", "exit 127")
    _program(path / "pyenv", f"echo {tmp_path}")
    versions = tmp_path / "versions"
    _program(versions / "3.99.2/bin/python3.99", "exit 0")
    newest = _program(versions / "3.99.10/bin/python3.99", "exit 0")
    _program(versions / "3.99.11/bin/python3.99", "exit 1")
    assert str(newest) == pythons.found("python3.99")


def test_a_python_that_is_nowhere(path: Path, tmp_path: Path) -> None:
    assert pythons.found("python3.99") is None
    _program(path / "pyenv", f"echo {tmp_path}")
    assert pythons.found("python3.99") is None
