# SPDX-License-Identifier: MIT
"""Good runs that were once ended or refused: tests of unusual forms, options, and their limits."""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from lab.suite import options
from tests.lab.suite_support import REPOSITORY, TABLE, TWO, Little

pytestmark = pytest.mark.lab


def test_subtests_are_part_of_their_test(little: Little) -> None:
    """A test with subtests, of pytest or of unittest, has one verdict: failed if a part failed."""
    little.tests("""
import unittest
def test_all_parts(subtests):
    for i in range(3):
        with subtests.test(i=i): pass
def test_a_part(subtests):
    for i in range(3):
        with subtests.test(msg="part", i=i): assert i != 1
def test_skipped_part(subtests):
    with subtests.test(): pytest.skip("not today")
class Case(unittest.TestCase):
    def test_all_of_unittest(self):
        for i in range(3):
            with self.subTest(i=i): self.assertEqual(i, i)
    def test_a_part_of_unittest(self):
        for i in range(3):
            with self.subTest(i=i): self.assertEqual(i, 1)
""")

    ran = little.lab()

    assert ran.code == 1, ran.output
    assert ran.verdicts == {
        "test_all_parts": "passed",
        "test_a_part": "failed",
        "test_skipped_part": "failed",
        "test_all_of_unittest": "passed",
        "test_a_part_of_unittest": "failed",
    }
    assert "assert 1 != 1" in ran.why("test_a_part")
    assert "skip refused: 'not today'" in ran.why("test_skipped_part")


def test_timeout_mark_without_a_number_is_no_limit(little: Little) -> None:
    """`timeout` may name a method or a scope alone; neither is a number of seconds."""
    little.tests("""
@pytest.mark.timeout(method="thread")
def test_method(): pass
@pytest.mark.timeout(func_only=True)
def test_scope(): time.sleep(1.5)
@pytest.mark.timeout(timeout=30, method="signal")
def test_both(): pass
""")

    ran = little.lab()

    assert ran.code == 0, ran.output
    assert set(ran.verdicts.values()) == {"passed"}


@pytest.mark.parametrize(
    ("mark", "sentence"),
    [
        ("timeout('soon')", "timeout('soon') is not a number of seconds"),
        ("timeout(10**400)", "0) is not a number of seconds"),
        ("timeout()", "timeout(): the mark takes a number of seconds, method="),
        ("timeout(1, method='alarm')", "timeout(1, method='alarm'): the mark takes"),
        ("timeout(1, 'signal', True)", "timeout(1, 'signal', True): the mark takes"),
        ("timeout(1, limit=2)", "timeout(1, limit=2): the mark takes"),
        ("timeout(1, func_only='no')", "timeout(1, func_only='no'): the mark takes"),
    ],
)
def test_timeout_mark_that_cannot_be_meant_is_2(little: Little, mark: str, sentence: str) -> None:
    """A mark that would end pytest in the guest is named with its test before anything runs."""
    little.tests(f"@pytest.mark.{mark}\ndef test_one(): pass\n")

    ran = little.lab()

    assert ran.code == 2, ran.output
    assert "tests/test_it.py::test_one: " in ran.output
    assert sentence in ran.output


def test_warnings_filter_reaches_the_guest(little: Little) -> None:
    """-W holds where the tests run."""
    little.tests("import warnings\ndef test_one(): warnings.warn('old', DeprecationWarning)\n")
    settings = f"[tool.pytest.ini_options]\naddopts = '-p lab.suite.plugin'\n{TABLE}"
    little.write("pyproject.toml", settings)

    assert little.lab().code == 0
    ran = little.lab("-W", "error::DeprecationWarning")

    assert ran.code == 1, ran.output
    assert "DeprecationWarning: old" in ran.why("test_one")


def test_plugin_reaches_the_guest(little: Little) -> None:
    """-p and PYTEST_PLUGINS hold where the tests run: a plugin of the tree is loaded, and one that
    is switched off is off."""
    little.write(
        "tests/strict.py",
        "import pytest\n"
        "@pytest.fixture\n"
        "def five(): return 5\n"
        "def pytest_runtest_call(item): assert item.name != 'test_bad'\n",
    )
    little.tests("def test_bad(): pass\ndef test_five(five): assert five == 5\n")
    expected = {"test_bad": "failed", "test_five": "passed"}

    assert little.lab("-p", "tests.strict").verdicts == expected
    assert little.lab(PYTEST_PLUGINS="tests.strict").verdicts == expected

    little.tests("import unittest\nclass Case(unittest.TestCase):\n    def test_it(self): pass\n")
    little.tests("def test_one(pytester): pytester.makepyfile('')\n", "tests/test_more.py")
    ran = little.lab("-p", "no:unittest", "-p", "pytester")

    assert ran.code == 0, ran.output
    assert ran.verdicts == {"test_one": "passed"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--pdb",), "--pdb: a guest has no terminal; use `python -m lab shell`"),
        (("--setup-only",), "--setup-only: it runs no test"),
        (("--fixtures",), "--fixtures: it runs no test, so nothing could be proved; `python -m"),
        (("--cache-show",), "--cache-show: it runs no test"),
        (("--markers",), "--markers: it runs no test"),
        (("--timeout=5",), "--timeout=5.0: the host limits the time of each test"),
        (("--basetemp=/tmp/x",), "--basetemp=/tmp/x: the directory would be the guest's"),
        (
            ("-p", "tests.lab.strange", "--strange=1"),
            "--strange=1: the option is of tests.lab.strange",
        ),
        (
            ("-c", "tests/lab/other.toml"),
            "--config-file=tests/lab/other.toml: this file does not travel to the guest",
        ),
    ],
)
def test_option_that_no_guest_hears_of_is_2(
    little: Little, arguments: tuple[str, ...], sentence: str
) -> None:
    """An option is passed on, done on the host, or refused with the reason; none is dropped."""
    little.tests(TWO)
    little.write("tests/lab/other.toml", "[tool.pytest.ini_options]\npythonpath = ['../..']\n")
    little.write(
        "tests/lab/strange.py", "def pytest_addoption(parser):\n    parser.addoption('--strange')\n"
    )

    ran = little.lab(*arguments)

    assert ran.code == 2, ran.output
    assert sentence in ran.output


def test_configuration_file_that_travels_is_the_guests_too(little: Little) -> None:
    """The guest's pytest is given the same -c as the host's."""
    little.tests("def check_it(): pass\n")
    little.write("tests/other.toml", "[tool.pytest.ini_options]\npython_functions = ['check_*']\n")

    ran = little.lab("--rootdir=.", "-c", "tests/other.toml", "tests")

    assert ran.code == 0, ran.output
    assert ran.verdicts == {"check_it": "passed"}


def test_every_option_of_pytest_has_a_fate(pytestconfig: pytest.Config) -> None:
    """A pytest with a new option is refused it in words, and this test says that it is there."""
    known = options.ON_HOST | set(options.SWITCHES) | set(options.VALUES) | options.ELSEWHERE
    known |= set(options.REFUSED)
    core = ("general", "terminal reporting", "pytest-warnings", "collect", "debugconfig", "logging")
    parser = pytestconfig._parser
    assert set(core) <= {group.name for group in [parser._anonymous, *parser._groups]}

    unknown = [
        option.dest
        for group in [parser._anonymous, *parser._groups]
        if group.name in core
        for option in group.options
        if option.dest not in known
    ]

    assert unknown == []


def test_hangup_is_ignored_under_nohup(little: Little) -> None:
    """What nohup(1) starts goes on when its terminal is gone, and ends as it would have."""
    little.tests("def test_one(): time.sleep(2)\n")
    process = subprocess.Popen(
        [
            *("nohup", sys.executable, "-m", "lab", "test", "--kernel=6.12"),
            *("-p", "tests.lab.hostile.plugin"),
        ],
        cwd=little.root,
        env=little.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    console = little.root / "lab-results/latest/console.log"
    deadline = time.monotonic() + 60
    while not (console.exists() and "test_one" in console.read_text()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    output, _ = process.communicate(timeout=60)

    ran = little.ran(process.returncode, output)

    assert ran.code == 0, output
    assert ran.verdicts == {"test_one": "passed"}


@pytest.mark.parametrize(("closed", "code"), [("terminal", 130), ("pipe", 3)])
def test_output_that_nobody_reads_any_more(little: Little, closed: str, code: int) -> None:
    """A terminal that is closed interrupts the run; a pipe that is closed leaves it not proved.
    Neither is a traceback's exit code, 1, which would say that something was disproved."""
    little.tests("def test_one(): time.sleep(2)\n")
    ours, its = pty.openpty() if closed == "terminal" else os.pipe()
    with subprocess.Popen(
        [sys.executable, "-m", "lab", "test", "--kernel=6.12", "-p", "tests.lab.hostile.plugin"],
        cwd=little.root,
        env=little.environment(),
        stdin=its if closed == "terminal" else subprocess.DEVNULL,
        stdout=its,
        stderr=its,
        start_new_session=True,
        preexec_fn=_take_terminal if closed == "terminal" else None,
    ) as process:
        os.close(its)
        console = little.root / "lab-results/latest/console.log"
        deadline = time.monotonic() + 60
        while not (console.exists() and "test_one" in console.read_text()):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        os.close(ours)

        assert process.wait(60) == code


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_no_guest_is_told_in_a_line(little: Little) -> None:
    """When no guest came up the report says so once, without the list of what was to run in it."""
    little.tests("@pytest.mark.parametrize('x', range(99))\ndef test_one(x): pass\n")
    for number in range(9):
        little.tests(TWO, f"tests/test_more_{number}.py")

    ran = little.lab("-k", "test_one or test_two", fake={"never_boots": True})

    assert ran.code == 3, ran.output
    assert ran.output.count("test_one[") == 0
    assert "117 tests never ran, because the agent said nothing within 120 s" in ran.output
    assert "    make lab KERNEL=6.12.107 ARGS=\"-k 'test_one or test_two'\"\n" in ran.output
    assert ran.results is not None
    assert 117 == len(ran.results["verdicts"])


@pytest.mark.parametrize("place", ["kernel", "own: it's $HOME, ü"])
def test_line_of_a_kernel_of_ones_own_reproduces(little: Little, place: str) -> None:
    """The line printed below a failure names the kernel's file, and typed into a shell it brings
    the same verdict on the same kernel."""
    recipe = (REPOSITORY / "Makefile").read_text()
    begin = recipe.index("lab: build ##")
    line = recipe[begin:].splitlines()[1]
    little.write(
        "Makefile",
        ".PHONY: lab\n"
        "SHELL := /bin/bash\n"
        "AS :=\n"
        f"RUN = @set -f; {sys.executable} -m\n"
        f"lab:\n{line.replace('lab test', 'lab test -p tests.lab.hostile.plugin')}\n",
    )
    little.tests("def test_bad(): assert False\ndef test_good(): pass\n")
    image = little.root / place / "bzImage"
    image.parent.mkdir()
    image.touch()

    first = little.run(
        *("lab", "test", "--kernel-file", str(image), "-p", "tests.lab.hostile.plugin")
    )
    printed = next(
        text.strip() for text in first.output.splitlines() if text.startswith("    make lab ")
    )
    again = subprocess.run(
        ["bash", "-c", printed],
        cwd=little.root,
        env=little.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=little.limit_s,
        check=False,
    )

    ran = little.ran(again.returncode, again.stdout + again.stderr)
    assert first.code == 1, first.output
    assert ran.verdicts == {"test_bad": "failed"}, (printed, ran.output)
    assert ran.results is not None
    assert ran.results["kernel"]["verified_by"] == f"sha256 0 of {image}"


def test_modules_beside_a_colon_in_a_path(tmp_path: Path) -> None:
    """A path of a kernel may hold colons, with modules named behind one more or without."""
    from lab.kernels.local import _image_and_modules

    image, modules = tmp_path / "a:b" / "bz:Image", tmp_path / "c:d"
    image.parent.mkdir()
    image.touch()
    modules.mkdir()

    assert (image, None) == _image_and_modules(str(image))
    assert (image, modules) == _image_and_modules(f"{image}:{modules}")
    missing = tmp_path / "no:where"
    assert (missing, None) == _image_and_modules(str(missing))


def test_guests_output_is_bounded(little: Little, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a test that prints without end the newest part is kept, and no more."""
    shutil.copytree(REPOSITORY / "lab", little.root / "lab", dirs_exist_ok=True)
    source = little.root / "lab/remote/process.py"
    source.write_text(source.read_text().replace("LOG_BYTES = 8 << 20", "LOG_BYTES = 1 << 20"))
    little.write("tests/kernels/expected.toml", "")
    little.tests(
        "def test_prints():\n"
        "    for n in range(40): os.write(2, b'x' * 200_000)\n"
        "    os.write(2, b'the end')\n"
    )
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    ran = little.lab("-s")

    kept = sum(path.stat().st_size for path in ran.files.glob("guest-output.log*"))
    assert ran.verdicts == {"test_prints": "passed"}, ran.output
    assert 1 << 20 <= kept <= (2 << 20) + 400_000
    assert b"the end" in (ran.files / "guest-output.log").read_bytes()[-2000:]
