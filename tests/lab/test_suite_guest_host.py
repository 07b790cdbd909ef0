# SPDX-License-Identifier: MIT
"""Tests that run on the host and ask a guest, `guest_host`: their verdicts are those of all
others."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from xml.etree import ElementTree

import pytest

from lab import tools
from lab.errors import LabError, MissingTool
from lab.suite import testinfra_host
from lab.vm import Completed
from tests.lab.suite_support import Little

pytestmark = pytest.mark.lab

ASKS = """
def asked(host):
    return host.check_output("echo %s", "asked")
"""


def test_runs_on_the_host_beside_those_of_the_guest(little: Little, tmp_path: Path) -> None:
    """One file has a test of each side: the one with the fixture runs in pytest's own process and
    is answered by the guest, the other runs in the guest. Both are in one book."""
    little.tests(
        f"""{ASKS}
def test_here(guest_host):
    assert "LAB_NONCE" not in os.environ
    assert "asked" == asked(guest_host)
    assert "LAB_FAKE_KMSG" in guest_host.environment()
    done = guest_host.run("echo %s >&2; kill -TERM $$", "it's")
    assert (128 + 15, "it's\\n") == (done.rc, done.stderr)
    assert guest_host.backend.guest.kernel.release == os.uname().release
    with open({str(tmp_path / "pid")!r}, "w") as file:
        file.write(str(os.getppid()))
def test_there():
    assert os.environ["LAB_NONCE"]
def test_through_a_fixture(mine):
    assert mine == "asked"
@pytest.fixture
def mine(guest_host):
    return asked(guest_host)
"""
    )

    ran = little.lab("-v")

    assert ran.code == 0, ran.output
    assert dict.fromkeys(("test_here", "test_there", "test_through_a_fixture"), "passed") == (
        ran.verdicts
    )
    assert str(os.getpid()) == (tmp_path / "pid").read_text()
    log = (ran.files / "kernel.log").read_text()
    for number, name in enumerate(("test_here", "test_there", "test_through_a_fixture"), 1):
        assert f"lab: start {number} tests/test_it.py::{name}" in log
    cases = ElementTree.parse(ran.files / "junit.xml").iter("testcase")
    assert {case.get("name") for case in cases} == set(ran.verdicts)


def test_failure_splat_and_skip_are_judged_as_ever(little: Little) -> None:
    """A failed assertion, a complaint of the kernel meanwhile, each kind of skip, a test that asks
    its guest nothing and would be as green without one, and one that runs in the guest and only
    there asks for the fixture."""
    little.tests(
        f"""{ASKS}
def test_wrong(guest_host):
    assert asked(guest_host) == "else"
def test_complaint(guest_host):
    guest_host.run("echo 'BUG: bad page state' >>$LAB_FAKE_KMSG")
@pytest.mark.needs("NAPI")
def test_absent(guest_host): assert False
@pytest.mark.needs("INC")
def test_there(guest_host): asked(guest_host)
def test_of_its_own(guest_host): pytest.skip("no reason")
def test_setup(broken, guest_host): pass
@pytest.fixture
def broken(): raise OSError("fixture broke")
def test_idle(guest_host): assert guest_host.backend.guest.kernel.release
def test_in_passing(request): request.getfixturevalue("guest_host")
"""
    )

    ran = little.lab()

    assert ran.code == 1, ran.output
    expected = {
        "test_wrong": "failed",
        "test_complaint": "splat",
        "test_absent": "skipped",
        "test_there": "passed",
        "test_of_its_own": "failed",
        "test_setup": "failed",
        "test_idle": "failed",
        "test_in_passing": "failed",
    }
    assert expected == ran.verdicts
    assert "AssertionError: assert 'asked' == 'else'" in ran.why("test_wrong")
    assert "skip refused" in ran.why("test_of_its_own")
    assert "fixture broke" in ran.why("test_setup")
    assert "asked its guest nothing" in ran.why("test_idle")
    assert "for tests that name it in their arguments" in ran.why("test_in_passing")


def test_lost_guest_costs_its_test_and_nobody_elses(little: Little) -> None:
    """The guest panics under a test on the host, which even hides that; the others, on both sides,
    run in a fresh one."""
    little.tests(
        f"""{ASKS}
def test_first(guest_host): asked(guest_host)
def test_panics(guest_host):
    guest_host.run("echo 'Kernel panic - not syncing: fake' >>$LAB_FAKE_KMSG")
    with pytest.raises(Exception):
        while True: asked(guest_host)
def test_behind(guest_host): asked(guest_host)
def test_in_guest(): pass
"""
    )

    ran = little.lab()

    assert ran.code == 1, ran.output
    assert ran.results is not None
    others = dict.fromkeys(("test_first", "test_behind", "test_in_guest"), "passed")
    assert {"test_panics": "splat", **others} == ran.verdicts
    assert 2 == len(ran.results["guests"])


def test_hanging_costs_one_test_its_verdict(little: Little) -> None:
    """A command that does not end fails the test that asked for it; a test that does not end by
    itself is lost, with its guest."""
    little.tests(
        f"""{ASKS}
def test_in_the_guest(guest_host): guest_host.run("sleep 600")
def test_on_the_host(guest_host): asked(guest_host); time.sleep(600)
def test_behind(guest_host): asked(guest_host)
"""
    )
    little.write("quick.py", "import lab.suite.host_side as it\nit.GRACE_S = 3.0\n")

    ran = little.lab("--lab-timeout=2", "-p", "quick")

    assert ran.code == 1, ran.output
    expected = {"test_in_the_guest": "failed", "test_on_the_host": "lost", "test_behind": "passed"}
    assert expected == ran.verdicts
    assert "was not done after" in ran.why("test_in_the_guest")
    assert re.fullmatch(
        r"no verdict within 2 s; it waited in tests/test_it\.py:\d+ \(test_on_the_host\)"
        r"(, in the kernel in \w+)?; (hang-\d+-1\.txt) has what was found; its guest was given up",
        ran.why("test_on_the_host"),
    ), ran.why("test_on_the_host")
    assert ran.results is not None
    hang = ran.results["verdicts"]["tests/test_it.py::test_on_the_host"]["hang"]
    assert "Python stacks" in (ran.files / hang["file"]).read_text()
    log = (ran.files / "tests.log").read_text()
    assert "-- where it was, call\n" in log
    assert "def test_on_the_host(guest_host): asked(guest_host); time.sleep(600)" in log
    assert ran.results is not None
    assert 2 == len(ran.results["guests"])


def test_plain_pytest_leaves_them_out(little: Little) -> None:
    """Without a guest there is nothing to ask: they are left out, that is said, and a run of
    nothing else is not green. Who asks for the fixture in passing is told the way."""
    little.tests("def test_asks(guest_host): guest_host.run('true')\n", "tests/guest/test_g.py")

    ran = little.pytest("tests/guest")

    assert ran.code == 5, ran.output
    assert "1 test left out that ask a guest; `python -m lab test` boots one" in ran.output

    little.tests("def test_in_passing(request): request.getfixturevalue('guest_host')\n")

    both = little.pytest()

    assert both.code == 1, both.output
    assert "guest_host is for tests that name it in their arguments" in both.output


def test_selection_is_pytests(little: Little) -> None:
    """--collect-only lists them, -k and node ids select them, -x ends with the first that fails,
    and without a test for the guest no pytest starts there."""
    little.tests(
        f"""{ASKS}
def test_a(guest_host): asked(guest_host)
def test_b(guest_host): assert not asked(guest_host)
def test_c(guest_host): asked(guest_host)
def test_d(): pass
"""
    )

    listed = little.lab("--collect-only", "-q")
    assert listed.code == 0, listed.output
    assert 4 == listed.output.count("tests/test_it.py::test_")

    stopped = little.lab("-x", "-k", "not test_d")
    assert stopped.code == 1, stopped.output
    assert {"test_a": "passed", "test_b": "failed", "test_c": "never ran"} == stopped.verdicts
    assert "starting pytest in the guest" not in stopped.output

    again = little.lab("--lf", "tests/test_it.py::test_b", "tests/test_it.py::test_d")
    assert {"test_b": "failed"} == again.verdicts, again.output


def test_fixtures_of_a_module_are_shared_and_torn_down(little: Little, tmp_path: Path) -> None:
    """Neighbours share a module's fixture; with two guests another file's test may come between,
    which tears it down first. Each set-up has its end."""
    for letter in "ab":
        little.tests(
            f"""{ASKS}
@pytest.fixture(scope="module")
def shared():
    with open({str(tmp_path / "log")!r}, "a") as file: print("up {letter}", file=file)
    yield
    with open({str(tmp_path / "log")!r}, "a") as file: print("down {letter}", file=file)
@pytest.mark.parametrize("n", range(3))
def test_{letter}(shared, guest_host, n): asked(guest_host)
""",
            f"tests/test_{letter}.py",
        )

    ran = little.lab("--lab-guests=1")
    assert ran.code == 0, ran.output
    log = tmp_path / "log"
    assert ["up a", "down a", "up b", "down b"] == log.read_text().splitlines()

    log.unlink()
    ran = little.lab("--lab-guests=2")
    assert ran.code == 0, ran.output
    lines = log.read_text().splitlines()
    assert [line.replace("up", "down") for line in lines[::2]] == lines[1::2]


def test_interrupt_leaves_nothing_behind(little: Little, tmp_path: Path) -> None:
    """Ctrl-C while a test on the host runs: it is lost, the rest never ran, the code is 130."""
    little.tests(
        f"""{ASKS}
def test_waits(guest_host):
    open({str(tmp_path / "began")!r}, "w").close()
    guest_host.run("sleep 60")
def test_behind(guest_host): asked(guest_host)
"""
    )
    command = [sys.executable, "-m", "lab", "test", "--kernel", "6.12"]
    with subprocess.Popen(
        [*command, "-p", "tests.lab.hostile.plugin"],
        cwd=little.root,
        env=little.environment(LAB_FAKE="{}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "began").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=60)[0]

    ran = little.ran(process.returncode, output)
    assert ran.code == 130, ran.output
    assert {"test_waits": "lost", "test_behind": "never ran"} == ran.verdicts


def test_exit_ends_the_run(little: Little) -> None:
    """pytest.exit() in a test on the host ends the run as it does everywhere; no verdict of it
    counts."""
    little.tests(
        f"""{ASKS}
def test_exits(guest_host):
    asked(guest_host)
    pytest.exit("enough")
def test_behind(guest_host): asked(guest_host)
"""
    )

    ran = little.lab()

    assert ran.code == 3, ran.output
    assert {"test_exits": "lost", "test_behind": "never ran"} == ran.verdicts
    assert "it called pytest.exit(): enough" in ran.why("test_exits")


def test_example_of_the_page(little: Little) -> None:
    """docs/testinfra.md: its tests pass as they stand there."""
    page = (Path(__file__).parents[2] / "docs/testinfra.md").read_text()
    [text] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    little.write("tests/test_state.py", text)

    ran = little.lab("tests/test_state.py")

    assert ran.code == 0, ran.output
    assert dict.fromkeys(("test_release", "test_state", "test_server"), "passed") == ran.verdicts


def test_missing_package_is_named(little: Little) -> None:
    """Without pytest-testinfra the tests fail with the way out."""
    little.tests("def test_asks(guest_host): guest_host.run('true')\n")
    little.write("hide.py", "import sys\nsys.modules['testinfra'] = None\n")

    ran = little.lab("-p", "hide")

    assert ran.code == 1, ran.output
    assert "pip install pytest-testinfra" in ran.why("test_asks")


def test_missing_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that guests have of this machine, and this machine has not: its package is said."""
    find = tools.find

    def without_ss(name: str) -> Path:
        return find("nosuch-ss" if name == "ss" else name, package=tools.PACKAGES[name])

    monkeypatch.setattr(tools, "find", without_ss)

    with pytest.raises(MissingTool, match="it comes in the package iproute2"):
        testinfra_host.host_of(cast("Any", None), 0.0)


def test_question_that_busybox_cannot_answer_is_refused() -> None:
    """Its nc knows no -z: testinfra would take every port for closed."""
    said = b"nc: invalid option -- 'z'\nBusyBox v1.35.0 multi-call binary.\n"
    guest = SimpleNamespace(
        kernel=SimpleNamespace(release="9.9"), run=lambda *_, **__: Completed(1, b"", said)
    )
    _, host = testinfra_host.host_of(cast("Any", guest), time.monotonic() + 60)

    with pytest.raises(LabError, match="busybox's nc knows no -z"):
        host.addr("127.0.0.1").port(22).is_reachable  # noqa: B018  (it asks)
