# SPDX-License-Identifier: MIT
"""A run whose tests are shared between several guests at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from lab.suite.shares import NEIGHBOURS
from tests.lab.suite_support import Little

pytestmark = pytest.mark.lab

WAIT = """
from pathlib import Path

def wait_for(path):
    deadline = time.monotonic() + 60
    while not Path(path).exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.01)
"""


def test_two_guests_run_tests_at_the_same_time(little: Little, tmp_path: Path) -> None:
    """Two tests that wait for each other both pass, each in a guest of its own."""
    for mine, other in (("a", "b"), ("b", "a")):
        little.tests(
            f"""{WAIT}
def test_{mine}():
    Path({str(tmp_path)!r}, "{mine}").write_text(os.environ["LAB_NONCE"])
    wait_for("{tmp_path}/{other}")
""",
            f"tests/test_{mine}.py",
        )

    ran = little.lab("--lab-guests=2")

    assert ran.code == 0, ran.output
    assert ran.verdicts == {"test_a": "passed", "test_b": "passed"}
    assert ran.results is not None
    nonces = {(tmp_path / name).read_text() for name in "ab"}
    assert {guest["nonce"] for guest in ran.results["guests"]} == nonces
    assert 2 == len(nonces)
    assert {".", "guest-2"} == {guest["files"] for guest in ran.results["guests"]}
    assert 2 == ran.results["at_once"]
    assert "2 guests at once" in ran.output
    for files in (ran.files, ran.files / "guest-2"):
        assert "lab: start 1 tests/test_" in (files / "kernel.log").read_text()


def test_every_test_runs_once_and_a_lost_guest_costs_one(little: Little, tmp_path: Path) -> None:
    """However the tests are shared, each runs exactly once, and a panic in the middle costs only
    the test that was running there."""
    for number in range(5):
        little.tests(
            f"""
@pytest.mark.parametrize("n", range({NEIGHBOURS + 3}))
def test_{number}(n):
    with open({str(tmp_path / "ran")!r}, "a") as file:
        file.write(f"test_{number}[{{n}}]\\n")
    if ({number}, n) == (2, 4):
        with open(os.environ["LAB_FAKE_KMSG"], "a") as log:
            log.write("Kernel panic - not syncing: fake\\n")
        time.sleep(60)
""",
            f"tests/test_{number}.py",
        )

    ran = little.lab()

    assert ran.code == 1, ran.output
    names = [f"test_{number}[{n}]" for number in range(5) for n in range(NEIGHBOURS + 3)]
    assert names == list(ran.verdicts)
    assert dict.fromkeys(names, 1) == Counter((tmp_path / "ran").read_text().split())
    assert ["test_2[4]"] == [name for name, v in ran.verdicts.items() if v != "passed"]
    assert "splat" == ran.verdicts["test_2[4]"]
    assert "2 guests at once" in ran.output
    assert "3 guests were needed" in ran.output


def test_exitfirst_begins_nothing_more_in_any_guest(little: Little, tmp_path: Path) -> None:
    """With -x the first failure ends every guest's share; what ran meanwhile has its verdict."""
    little.write(
        "tests/conftest.py",
        f"""
import os
from pathlib import Path

def pytest_runtest_logreport(report):
    if report.failed and "LAB_NONCE" not in os.environ:  # on the host, not in the guest
        Path({str(tmp_path)!r}, "failed").touch()
""",
    )
    little.tests(
        f"""{WAIT}
def test_a():
    wait_for("{tmp_path}/b")
    assert False
def test_after_a(): pass
""",
        "tests/test_a.py",
    )
    little.tests(
        f"""{WAIT}
def test_b():
    Path({str(tmp_path)!r}, "b").touch()
    wait_for("{tmp_path}/failed")
def test_after_b(): pass
""",
        "tests/test_b.py",
    )

    ran = little.lab("--lab-guests=2", "-x")

    assert ran.code == 1, ran.output
    assert ran.verdicts == {
        "test_a": "failed",
        "test_after_a": "never ran",
        "test_b": "passed",
        "test_after_b": "never ran",
    }


def test_guest_that_comes_up_too_late_begins_nothing(little: Little, tmp_path: Path) -> None:
    """A guest that is up only when the run is to end begins no test, and one that there is no test
    for is not booted at all."""
    little.write(
        "tests/conftest.py",
        f"""
import os
import time
from pathlib import Path

def pytest_sessionfinish(session):  # in the first guest, which is told when the run is to end
    if session.config.pluginmanager.get_plugin("lab-guest-side") is not None:
        Path({str(tmp_path)!r}, "told").touch()

def pytest_collection_finish(session):
    if session.config.pluginmanager.get_plugin("lab-guest-side") is None:
        return
    try:
        os.mkdir({str(tmp_path / "first")!r})
    except FileExistsError:
        while not Path({str(tmp_path)!r}, "told").exists():
            time.sleep(0.01)
""",
    )
    for name in "ab":
        little.tests(f"def test_{name}(): assert False\n", f"tests/test_{name}.py")

    ran = little.lab("--lab-guests=3", "-x")

    assert ran.code == 1, ran.output
    assert ["failed", "never ran"] == sorted(ran.verdicts.values())
    assert ran.results is not None
    assert 2 == ran.results["at_once"] == len(ran.results["guests"])


def test_guest_that_cannot_be_believed_ends_the_run_of_all(little: Little, tmp_path: Path) -> None:
    """When one of two guests lies, what the other one ran counts, and nobody runs the liar's."""
    for name in "ab":
        little.tests(
            f"""{WAIT}
def test_{name}(): wait_for("{tmp_path}/lied")
def test_after_{name}(): pass
""",
            f"tests/test_{name}.py",
        )
    little.write(
        "tests/conftest.py",
        f"""
import os

def pytest_collection_finish(session):
    if session.config.pluginmanager.get_plugin("lab-guest-side") is None:
        return
    try:
        os.mkdir({str(tmp_path / "first")!r})
    except FileExistsError:
        session.items.append(session.items[0])
        os.mkdir({str(tmp_path / "lied")!r})
""",
    )

    ran = little.lab("--lab-guests=2")

    assert ran.code == 3, ran.output
    assert "collected only in the guest: tests/test_a.py::test_a" in ran.last_line
    honest, liar = ("a", "b") if ran.verdicts["test_a"] == "passed" else ("b", "a")
    assert "passed" == ran.verdicts[f"test_{honest}"]
    assert {"never ran"} == {ran.verdicts[f"test_{liar}"], ran.verdicts[f"test_after_{liar}"]}


def test_interrupt_ends_both_guests(little: Little, tmp_path: Path) -> None:
    """Ctrl-C ends what both guests are at: two tests lost, and nothing left behind."""
    for name in "ab":
        little.tests(
            f"""
from pathlib import Path
def test_{name}():
    Path({str(tmp_path)!r}, "{name}").touch()
    time.sleep(3600)
def test_after_{name}(): pass
""",
            f"tests/test_{name}.py",
        )
    process = subprocess.Popen(
        _command("--lab-guests=2"),
        cwd=little.root,
        env=little.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not all((tmp_path / name).exists() for name in "ab"):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)

    ran = little.ran(process.returncode, output)

    assert ran.code == 130, output
    assert ran.verdicts == {
        "test_a": "lost",
        "test_after_a": "never ran",
        "test_b": "lost",
        "test_after_b": "never ran",
    }


def _command(*arguments: str) -> list[str]:
    run = [sys.executable, "-m", "lab", "test", "--kernel=6.12"]
    return [*run, "-p", "tests.lab.hostile.plugin", *arguments]
