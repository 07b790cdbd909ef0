# SPDX-License-Identifier: MIT
"""The lab as a distribution: what its wheel holds, and that an environment with it in runs plain
pytest as one without it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.lab

REPOSITORY = Path(__file__).parents[2]
LAB = REPOSITORY / "lab"
NOT_SHIPPED = frozenset(("pyproject.toml", "setup.py", "README.md"))

CONFTEST = """\
import pytest
def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="ours")
@pytest.fixture
def slow(request):
    return request.config.getoption("--slow")
"""
TESTS = """\
import pytest
def test_passes(slow): assert slow
def test_fails(): assert 1 == 2
def test_skips(): pytest.skip("no reason that a probe could confirm")
@pytest.mark.xfail
def test_may_fail(): assert False
@pytest.mark.parametrize("a", [1, "two"])
def test_of_parameters(a): pass
"""


def tracked() -> list[Path]:
    """The files of the lab that git knows, relative to its folder."""
    done = subprocess.run(["git", "ls-files", "-z", "."], cwd=LAB, capture_output=True, check=True)
    names = [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]
    return [Path(name) for name in names if (LAB / name).is_file()]


def all_files() -> set[Path]:
    """What is in the lab's folder, whether git knows it or not."""
    return {path for path in LAB.rglob("*") if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel; the folder that it was built from is as it was."""
    before = all_files()
    place = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"),
            *("--disable-pip-version-check", "-w", str(place), str(LAB)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    assert before == all_files()
    [found] = place.glob("kernel_lab-*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel's contents: on sys.path, the lab is an installed distribution."""
    place = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    return place


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """Somebody else's repository."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    return tmp_path


def run_pytest(
    root: Path, *words: str, path: Sequence[Path] = ()
) -> subprocess.CompletedProcess[str]:
    """Plain pytest in a repository, with `path` in front of the environment's packages."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTEST_ADDOPTS", "PYTHONPATH")}
    env |= {"PYTHONPATH": os.pathsep.join(map(str, path))} if path else {}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words],
        cwd=root,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def said(done: subprocess.CompletedProcess[str]) -> tuple[int, list[str]]:
    """Exit code and words of a run, without the list of plugins and the time it took."""
    lines = (done.stdout + done.stderr).splitlines()
    kept = [line for line in lines if not line.startswith("plugins: ")]
    return done.returncode, [re.sub(r"=* *in [0-9.]+s.*", "", line).strip("= ") for line in kept]


def test_the_wheel_holds_every_file_of_the_lab_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = {f"kernel_lab/{p.as_posix()}" for p in tracked() if p.name not in NOT_SHIPPED}
    assert wanted == held


@pytest.mark.parametrize(
    "words",
    [
        ("-v", "-rA", "--slow"),
        ("--markers", "--fixtures"),
        ("--help",),
        ("--collect-only", "-q"),
        ("--no-such-option",),
        ("-k", "nothing_of_it"),
    ],
    ids=" ".join,
)
def test_installed_but_not_asked_it_changes_nothing(
    others: Path, installed: Path, words: tuple[str, ...]
) -> None:
    without = run_pytest(others, *words)
    assert said(without) == said(run_pytest(others, *words, path=[installed]))
    assert without.returncode in (0, 1, 4, 5)


def test_an_option_of_the_repositorys_own_that_clashes_is_one_sentence(
    others: Path, installed: Path
) -> None:
    (others / "conftest.py").write_text(CONFTEST.replace("--slow", "--lab-results"))
    assert 1 == run_pytest(others, path=[installed]).returncode
    done = run_pytest(others, "--lab-kernel=6.12", path=[installed])
    assert 4 == done.returncode
    assert "Traceback" not in done.stderr
    assert "ERROR: a plugin or conftest.py of this repository has an option" in done.stderr
    assert "--lab-results" in done.stderr


def test_an_option_of_a_plugin_that_came_first_clashes_the_same_way(
    others: Path, installed: Path
) -> None:
    (others / "ours.py").write_text(
        "def pytest_addoption(parser): parser.addoption('--lab-guests')\n"
    )
    done = run_pytest(others, "-p", "ours", "--lab-kernel=6.12", path=[installed])
    assert 4 == done.returncode
    assert "Traceback" not in done.stderr
    assert "ERROR: a plugin or conftest.py of this repository has an option" in done.stderr
    assert "--lab-guests" in done.stderr


@pytest.mark.parametrize("table", ["", '[tool.lab]\nkernels = ["6.12"]\n'])
def test_only_a_repository_with_a_table_may_use_the_labs_markers(
    others: Path, installed: Path, table: str
) -> None:
    (others / "pytest.ini").unlink()
    settings = '[tool.pytest.ini_options]\naddopts = ["--strict-markers"]\n'
    (others / "pyproject.toml").write_text(settings + table)
    (others / "test_it.py").write_text(
        "import pytest\n@pytest.mark.needs('A')\ndef test_it(): pass\n"
    )
    done = run_pytest(others, path=[installed])
    assert (0 if table else 2) == done.returncode, done.stdout


def test_the_labs_own_command_may_import_it_before_pytest(others: Path, installed: Path) -> None:
    """pytest warns of a plugin's package that it cannot rewrite, and a repository may have made
    errors of warnings."""
    run = "import kernel_lab, pytest, sys; sys.exit(pytest.main(sys.argv[1:]))"
    done = subprocess.run(
        # pytest-asyncio has a warning of its own where nobody has chosen a scope for its loops.
        [
            *(
                sys.executable,
                "-c",
                run,
                "-W",
                "error",
                "-p",
                "no:cacheprovider",
                "-p",
                "no:asyncio",
            ),
            *("--slow", "-k", "two"),
        ],
        cwd=others,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
