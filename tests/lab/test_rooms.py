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
            "ioxide/_asyncio/loop.py",
            "import lab.errors\n",
            "ioxide is not allowed to import lab",
            id="the lab",
        ),
        pytest.param(
            "ioxide/_asyncio/transports.py",
            "if TYPE_CHECKING:\n    from ioxide._asyncio.tcp import TcpLoop\n",
            "ioxide._asyncio.transports is not allowed to import ioxide._asyncio.tcp",
            id="a module of ioxide above",
        ),
        pytest.param(
            "ioxide/_driver/driver.py",
            "if TYPE_CHECKING:\n    from ioxide._server.server import Server\n",
            "ioxide._driver is not allowed to import ioxide._server",
            id="a room of ioxide above",
        ),
        pytest.param(
            "ioxide/_probe/mask.py",
            "def upward():\n    from ioxide import ServerConfig\n    return ServerConfig\n",
            "ioxide._probe is not allowed to import ioxide._common",
            id="a room of ioxide beside, by the facade",
        ),
        pytest.param(
            "ioxide/_server/attic.py",
            "x = 1\n",
            "ioxide._server.attic",
            id="a module without a place",
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


# Head of a table in docs/architecture.md, and the package whose contract it shows.
PICTURES = [
    ("## The lab", "Room", "lab"),
    ("## The reactor", "Room", "ioxide"),
    ("### The server", "`_server/`", "ioxide._server"),
    ("### Asyncio's face", "`_asyncio/`", "ioxide._asyncio"),
    ("### The driver", "`_driver/`", "ioxide._driver"),
    ("### What all share", "`_common/`", "ioxide._common"),
    ("### The probe", "`_probe/`", "ioxide._probe"),
]


@pytest.mark.parametrize(("under", "head", "package"), PICTURES, ids=[p for *_, p in PICTURES])
def test_architecture_names_the_rooms_in_their_order(under: str, head: str, package: str) -> None:
    """A table of rooms, or of a room's files, is the list of layers of its contract."""
    (rooms,) = (one for one in SETTINGS["contracts"] if one.get("containers") == [package])
    text = (ROOT / "docs/architecture.md").read_text().partition(f"\n{under}\n")[2]
    table = text.partition(f"\n| {head} |")[2].partition("\n\n")[0]
    lines = [
        re.findall(r"`(?:lab/)?(\w+)(?:/|\.py)`", line.split("|")[1])
        for line in table.splitlines()[2:]
    ]

    assert rooms["layers"] == [" | ".join(line) for line in lines]


def test_every_room_of_ioxide_has_an_order() -> None:
    """Each package has layers of its own, but the core in C and the reproducers of the errata."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    packages = settings["setuptools"]["packages"]
    ordered = [name for one in SETTINGS["contracts"] for name in one.get("containers", ())]

    assert {"ioxide._ring", "ioxide._errata"} == set(packages) - set(ordered)
    assert all(one["exhaustive"] for one in SETTINGS["contracts"] if one["type"] == "layers")
