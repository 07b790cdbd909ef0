# SPDX-License-Identifier: MIT
"""The rooms of the lab and of ioxide: an import that goes upward is found wherever it stands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """import-linter over the repository in `root`."""
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the repository's packages and settings."""
    for package in ("ioxide", "lab"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("*.c"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "text", "broken"),
    [
        pytest.param(
            "lab/report/summary.py",
            "def upward():\n    from ..suite import judge\n    return judge\n",
            "lab.report is not allowed to import lab.suite",
            id="inside a function",
        ),
        pytest.param(
            "lab/facts/records.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..vm import Guest\n",
            "lab.facts is not allowed to import lab.vm",
            id="for the type checker",
        ),
        pytest.param(
            "lab/errata/table.py",
            "from ..suite import judge\n",
            "lab.errata is not allowed to import lab.suite",
            id="beside",
        ),
        pytest.param("lab/attic.py", "x = 1\n", "lab.attic", id="a room that has no place"),
        pytest.param(
            "lab/vm/room.py",
            "from . import launchpad\n",
            "No cycles are allowed in lab.vm",
            id="in a circle",
        ),
        pytest.param(
            "lab/rules/needs.py",
            "import pytest\n",
            "lab.rules is not allowed to import pytest",
            id="pytest",
        ),
        pytest.param(
            "ioxide/loop.py",
            "import lab.errors\n",
            "ioxide is not allowed to import lab",
            id="the lab",
        ),
        pytest.param(
            "ioxide/transports.py",
            "if TYPE_CHECKING:\n    from ioxide.tcp import TcpLoop\n",
            "ioxide.transports is not allowed to import ioxide.tcp",
            id="a module of ioxide above",
        ),
        pytest.param(
            "ioxide/_probe/outcome.py",
            "from ioxide._probe import rings\n",
            "No cycles are allowed in ioxide._probe",
            id="a circle in ioxide",
        ),
    ],
)
def test_import_that_breaks_a_contract_is_found(
    copy: Path, file: str, text: str, broken: str
) -> None:
    """Each kind of import that the rooms forbid makes `make lint` fail, and is named."""
    with (copy / file).open("a") as module:
        module.write(text)

    done = lint(copy)

    assert 1 == done.returncode, done.stdout
    assert broken in done.stdout


def test_no_import_is_ignored() -> None:
    """The contracts hold without an exception, and the type checker's imports count."""
    assert SETTINGS["exclude_type_checking_imports"] is False
    assert [] == [one["name"] for one in SETTINGS["contracts"] if "ignore_imports" in one]


def test_architecture_names_the_rooms_in_their_order() -> None:
    """The table of rooms in docs/architecture.md is the contract's list of layers."""
    (rooms,) = (one for one in SETTINGS["contracts"] if one.get("containers") == ["lab"])
    text = (ROOT / "docs/architecture.md").read_text().partition("## The lab")[2]
    table = text.partition("| Room |")[2].partition("\n\n")[0]
    lines = [
        re.findall(r"`lab/(\w+)(?:/|\.py)`", line.split("|")[1]) for line in table.splitlines()[2:]
    ]

    assert rooms["layers"] == [" | ".join(line) for line in lines]
