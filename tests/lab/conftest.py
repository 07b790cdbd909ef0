# SPDX-License-Identifier: MIT
"""Fixtures for the tests of the lab."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.kernels import lock
from lab.suite.stash import PROJECT
from tests.lab.suite_support import Little


@pytest.fixture(autouse=True)
def _own_lock(monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> None:
    """Each test begins with this repository's lock. What it binds instead, as `lab.cli.main()`
    does, binds in that test alone; a fixture of a wider scope, which comes first, may have bound
    another."""
    project = pytestconfig.stash[PROJECT]
    monkeypatch.setattr(lock, "LOCK", project.path(project.lock))


@pytest.fixture
def little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Little]:
    """A little repository; fails if a run in it leaves a fake guest's directory behind."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    repository = tmp_path / "little"
    repository.mkdir()

    yield Little(repository)

    assert [] == [path.name for path in scratch.glob("lab-fake-*")]
