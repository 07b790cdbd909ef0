# SPDX-License-Identifier: MIT
"""What `lab test` makes of what it is asked for: selections, bad requests, an early end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.lab.suite_support import TWO, Little

pytestmark = pytest.mark.lab


def test_pytest_itself_can_be_the_lab(little: Little) -> None:
    """`pytest --lab-kernel` is the same run with the same exit codes."""
    little.tests("def test_one(): pass\ndef test_two(): os._exit(0)\n")

    ran = little.pytest("-p", "tests.lab.hostile.plugin", "--lab-kernel=6.12")

    assert ran.code == 3, ran.output
    assert ran.verdicts == {"test_one": "passed", "test_two": "lost"}
    assert ran.last_line.startswith("lab: exit 3 (not proved)")


@pytest.mark.parametrize("arguments", [(), ("--collect-only",)])
def test_nothing_selected_is_3(little: Little, arguments: tuple[str, ...]) -> None:
    """A run that selects nothing proves nothing, and a list of nothing is no list."""
    little.tests(TWO)

    ran = little.lab("-k", "nothing_is_called_this", *arguments)

    assert ran.code == 3, ran.output


def test_collect_only_lists_and_claims_nothing(little: Little) -> None:
    """Who asks for the list of tests gets it: no verdicts, no results, and not the word proved. A
    file that cannot be collected is still 1."""
    little.tests(TWO)
    assert little.lab().code == 0
    before = (little.root / "lab-results/latest").resolve()

    listed = little.lab("--collect-only", "-q")
    little.write("tests/test_broken.py", "import no_such_module\n")
    broken = little.lab("--collect-only", "-q")

    assert listed.code == 0, listed.output
    assert "tests/test_it.py::test_two" in listed.output
    assert "never ran" not in listed.output
    assert listed.last_line == "lab: exit 0 (collected only): 2 tests, none was run"
    assert (little.root / "lab-results/latest").resolve() == before
    assert [before] == [p for p in (little.root / "lab-results").iterdir() if not p.is_symlink()]
    assert broken.code == 1, broken.output


def test_selection_is_pytests(little: Little) -> None:
    """-k, -m, a path and a node id select as in pytest, in the guest as on the host."""
    little.tests("""
def test_one(): pass
def test_two(): assert False
@pytest.mark.kernel_gated
def test_three(): pass
""")
    little.tests(TWO, "tests/sub/test_other.py")
    node = "tests/test_it.py::test_three"

    assert little.lab("-k", "one").verdicts == {"test_one": "passed"}
    assert little.lab("-m", "kernel_gated").verdicts == {"test_three": "passed"}
    assert little.lab("tests/sub").verdicts == {"test_one": "passed", "test_two": "passed"}
    assert little.lab(str(little.root / node)).verdicts == {"test_three": "passed"}
    assert little.lab("--deselect", "tests/test_it.py::test_two").code == 0


def test_exitfirst_names_what_never_ran(little: Little) -> None:
    """-x stops at the first failure; what it kept from running is named, and 1 wins over 3."""
    little.tests("def test_a(): assert False\ndef test_b(): pass\n")

    ran = little.lab("-x")

    assert ran.code == 1, ran.output
    assert ran.verdicts == {"test_a": "failed", "test_b": "never ran"}


def test_last_failed_runs_those_only(little: Little) -> None:
    """--lf takes what failed in the last run, which only the host remembers."""
    little.tests("def test_a(): pass\ndef test_b(): assert False\ndef test_c(): pass\n")
    little.tests(TWO, "tests/test_other.py")

    assert little.lab().code == 1
    assert little.lab("--lf").verdicts == {"test_b": "failed"}


def test_slow_and_lab_tests_are_left_out_and_counted(little: Little) -> None:
    """Slow tests need asking for, and no test of the lab itself ever goes to a guest."""
    little.tests("""
def test_quick(): pass
@pytest.mark.slow
def test_slow(): pass
@pytest.mark.lab
def test_lab(): assert False
""")
    little.tests("def test_inside(): assert False\n", "tests/lab/test_inside.py")

    without, taken = little.lab(), little.lab("--lab-slow")

    assert without.verdicts == {"test_quick": "passed"}
    assert "1 slow test left out; SLOW=1 takes them" in without.output
    assert taken.verdicts == {"test_quick": "passed", "test_slow": "passed"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_is_130_and_leaves_nothing(little: Little, number: signal.Signals) -> None:
    """Ctrl-C ends the run at once; the fixture's teardown sees that no guest is left."""
    little.tests("def test_a(): pass\ndef test_hang(): time.sleep(3600)\ndef test_b(): pass\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "lab", "test", "--kernel=6.12", "-p", "tests.lab.hostile.plugin"],
        cwd=little.root,
        env=little.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    console = little.root / "lab-results/latest/console.log"
    deadline = time.monotonic() + 60
    while not (console.exists() and "test_hang" in console.read_text()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=60)

    ran = little.ran(process.returncode, output)

    assert ran.code == 130, output
    assert ran.verdicts == {"test_a": "passed", "test_hang": "lost", "test_b": "never ran"}
    assert ran.last_line.startswith("lab: exit 130 (interrupted)")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--no-such-option",),
        ("tests/no_such_file.py",),
        ("-k", "a and"),
        ("--lab-timeout=0",),
        ("--lab-guests=0",),
        ("/",),
    ],
)
def test_bad_arguments_are_2(little: Little, arguments: tuple[str, ...]) -> None:
    """Arguments that pytest or the lab cannot mean are a usage error."""
    little.tests(TWO)

    ran = little.lab(*arguments)

    assert ran.code == 2, ran.output
    assert ran.last_line.startswith("lab: exit 2 (usage)")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("9.99", "unknown kernel '9.99' (known: 6.12.107)"), ("", "--kernel names no kernel")],
)
def test_unknown_kernel_is_2_and_lists_the_known(little: Little, name: str, sentence: str) -> None:
    """A kernel nobody has heard of is a usage error that names the known ones. An empty name, as of
    a variable that is not set, is one too, and nothing runs on the host in its place."""
    little.tests("def test_a(): os.mkdir('ran-here')\n")

    ran = little.lab(kernel=name)

    assert ran.code == 2, ran.output
    assert sentence in ran.last_line
    assert not (little.root / "ran-here").exists()


def test_unavailable_kernel_is_3_with_the_cause(little: Little) -> None:
    """A kernel that cannot be had is not the caller's fault."""
    little.tests(TWO)

    ran = little.lab(kernel="6.10")

    assert ran.code == 3, ran.output
    assert "no source has 6.10" in ran.last_line


def test_nobody_runs_a_guests_test_on_the_host(little: Little) -> None:
    """A plugin that takes the items before the lab does cannot run them on the host."""
    little.tests("def test_a(): os.mkdir('ran-here')\ndef test_b(): pass\n")
    little.write(
        "tests/conftest.py",
        """
import pytest
from _pytest.runner import runtestprotocol

class Thief:
    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        for item in session.items:
            runtestprotocol(item, nextitem=None)
        return True

def pytest_collection_finish(session):
    if session.config.getoption("lab_kernel"):
        session.config.pluginmanager.register(Thief())
""",
    )

    ran = little.lab()

    assert ran.code == 3, ran.output
    assert ran.verdicts == {"test_a": "never ran", "test_b": "never ran"}
    assert "was about to run on the host instead of in a guest" in ran.output
    assert not (little.root / "ran-here").exists()
