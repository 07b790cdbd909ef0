# SPDX-License-Identifier: MIT
"""Plain `pytest -n 2` on this machine: several processes obey the law as one does. And workers of
pytest-xdist's own in guests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.rules.contract import series_of_release
from lab.suite import xdist_worker
from tests.lab.suite_support import PRESENT, REPOSITORY, Little

pytestmark = pytest.mark.lab

HERE = series_of_release(os.uname().release)
ALONE: tuple[str, ...] = ()
SPREAD = ("-p", "xdist", "-n", "2")
TESTS = """
def test_plain(): pass
@pytest.mark.needs("INC")
def test_inc(): pass
@pytest.mark.needs("NAPI")
def test_napi(): pass
"""


@pytest.fixture(params=[ALONE, SPREAD], ids=["alone", "spread"])
def how(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """How pytest is to run: in one process or in several. What comes of it is the same."""
    found: tuple[str, ...] = request.param
    return found


def _promise(little: Little, cell: str) -> None:
    with (little.root / "tests/kernels/expected.toml").open("a") as file:
        file.write(f'"{HERE}".{cell}\n')


def test_guest_knows_what_tests_name_of_xdist(little: Little) -> None:
    """Its marker under --strict-markers, and its fixtures, although no guest loads it."""
    little.tests("""
@pytest.mark.xdist_group("one")
def test_names(worker_id, testrun_uid, pytestconfig):
    assert worker_id == "master"
    assert testrun_uid
    assert not pytestconfig.pluginmanager.hasplugin("xdist")
""")

    ran = little.lab("-p", "xdist")

    assert ran.code == 0, ran.output
    assert ran.verdicts == {"test_names": "passed"}


def test_good_session_is_0(little: Little, how: tuple[str, ...]) -> None:
    """What is absent by probe and contract is skipped."""
    little.tests(TESTS)

    ran = little.pytest(*how)

    assert ran.code == 0, ran.output
    assert "2 passed, 1 skipped" in ran.output


def test_surprise_is_1(little: Little, how: tuple[str, ...]) -> None:
    """A capability that is there although the contract denies it makes the session red, also when
    the tests that asked for it ran in a process of their own; it is told once."""
    _promise(little, 'INC = "no, measured"')
    little.tests(TESTS)

    ran = little.pytest(*how)

    assert ran.code == 1, ran.output
    assert 1 == ran.output.count(f"surprise: INC is denied {HERE} (measured")
    assert "2 passed, 1 skipped" in ran.output


def test_nothing_passed_is_3(little: Little, how: tuple[str, ...]) -> None:
    """A session of skipped tests proves nothing."""
    little.tests(TESTS)

    ran = little.pytest(*how, "-k", "napi")

    assert ran.code == 3, ran.output
    assert "nothing passed, so nothing is proved" in ran.output


def test_erratum_is_found_and_green(little: Little, how: tuple[str, ...]) -> None:
    """A reproducer that finds its erratum is an xfail, which travels between processes."""
    node = "tests/kernel_gated/errata/test_errata_it.py::test_it"
    little.write(
        "tests/kernels/errata.toml",
        f"""
[[erratum]]
id = "IOX-ERR-001"
title = "It is broken"
capability = "INC"
reproducer = "{node}"
known_bad = []
known_good = []
links = []
""",
    )
    little.tests(
        f"""
{PRESENT}
@pytest.mark.needs("INC")
def test_it(): raise ErratumPresent("IOX-ERR-001", "res=1")
def test_fine(): pass
""",
        node.partition("::")[0],
    )

    ran = little.pytest(*how)

    assert ran.code == 0, ran.output
    assert "1 passed, 1 xfailed" in ran.output


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_worker_of_xdist_in_a_guest(tmp_path: Path) -> None:
    """`lab run` starts it by --tx: the tests run on the guest's kernel and have a tmp_path there;
    the exit code is pytest's."""
    shutil.copy(REPOSITORY / "tests/kernels/kernels.lock", tmp_path)
    (tmp_path / "lab.toml").write_text('kernels = ["6.12"]\nlock = "kernels.lock"\n')
    (tmp_path / "test_it.py").write_text(
        """
import os

def test_where(tmp_path):
    assert os.uname().release.startswith("6.12.")
    (tmp_path / "file").write_text("x")
    assert ["file"] == os.listdir(tmp_path)

def test_bad(): assert False, os.uname().release
"""
    )
    copies = f"--copy {REPOSITORY / 'lab'} --copy {tmp_path / 'test_it.py'}"
    run = f"{sys.executable} -m lab run --kernel 6.12 {copies} -- python3"
    plugins = ("-p", "xdist", "-p", "lab.suite.xdist_worker")
    words = [*plugins, "--dist=load", "--tx", f"popen//python={run}", "test_it.py"]

    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=tmp_path,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("PYTEST")},
            "PYTHONPATH": str(REPOSITORY),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

    assert 1 == done.returncode, done.stdout
    assert re.search(r"1 failed, 1 passed in ", done.stdout), done.stdout
    assert re.search(r"AssertionError: 6\.12\.\d+", done.stdout), done.stdout


def test_directories_of_a_worker_are_made(tmp_path: Path) -> None:
    """Those above its own, which it makes itself; and nothing of whoever is no worker."""
    named = tmp_path / "a/b/popen-gw0"
    config = SimpleNamespace(option=SimpleNamespace(basetemp=str(named)))
    xdist_worker.pytest_configure(cast("Any", config))
    assert [] == [*tmp_path.iterdir()]
    config.workerinput = {}
    xdist_worker.pytest_configure(cast("Any", config))
    assert named.parent.is_dir()
    assert not named.exists()
    config.option.basetemp = None
    xdist_worker.pytest_configure(cast("Any", config))


def test_process_that_ends_without_a_word_is_not_0(little: Little) -> None:
    """A process of pytest-xdist that is gone behind its last test may have seen a surprise."""
    little.tests(TESTS)
    little.write(
        "tests/conftest.py",
        """
import os
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    if getattr(session.config, "workerinput", {}).get("workerid") == "gw0":
        os._exit(0)
""",
    )

    ran = little.pytest(*SPREAD)

    assert ran.code == 3, ran.output
    assert "a process of pytest-xdist ended without a word: exit 3" in ran.output
