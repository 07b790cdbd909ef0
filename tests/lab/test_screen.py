# SPDX-License-Identifier: MIT
"""The live screen of a run, in an emulated terminal."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import struct
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from xml.etree import ElementTree

import pyte
import pytest
from rich.cells import cell_len

from lab.facts.records import Record
from lab.facts.verdicts import Verdict
from lab.report.display import make_progress
from lab.report.progress import Guest, PlainProgress
from lab.report.screen import MARGIN, Screen
from tests.lab.suite_support import Little, leg_of
from tests.lab.terminal_support import (
    BAR,
    GUEST,
    Scene,
    guests_shown,
    pictured,
    squeezed,
)

pytestmark = pytest.mark.lab

PAINTING = """
@pytest.mark.parametrize("n", range(6))
def test_good(n): time.sleep(0.15)

def test_paints():
    print("\\x1b[2J\\x1b[10;10H\\x1b[?25l\\x1b[31mpainted\\x1b]0;title\\x07")
    time.sleep(0.3)
    raise AssertionError("\\x1b[2J\\x1b[1;1Hwiped away")

def test_dies():
    time.sleep(0.3)
    os._exit(3)

def test_wide_雪だるま_name(): assert not "雪" * 90
"""
UNREAD_S = 4.0
"""A terminal that takes nothing in for so long has more than 4 KiB to read: of those a Ctrl-C lets
the kernel drop what is behind them, and the screen would not know where the cursor is."""
BAD = ("test_paints", "test_dies", "test_wide_雪だるま_name")


@pytest.fixture
def scene(little: Little) -> Scene:
    return Scene(little)


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50)])
def test_two_guests_leave_no_garbage_and_no_line_is_lost(
    scene: Scene, columns: int, lines: int
) -> None:
    """A bar, and a line for each guest, in the last lines of the terminal. What failed is above
    them, once each, whatever the tests painted; when all is over, nothing of the screen is left."""
    scene.little.tests(PAINTING)
    most = 0

    def look() -> None:
        nonlocal most
        assert not any("about" in line for line in pictured(terminal)[:1])  # no run before this
        most = max(most, guests_shown(terminal))

    kernels = ("--kernel=6.12", "--kernel=6.1")
    with scene.run(*kernels, columns=columns, lines=lines) as terminal:
        code = terminal.end(look)
        text = terminal.all()

        assert 1 == code, "\n".join(text)
        assert 2 == most
        assert not any(BAR.fullmatch(line) or GUEST.fullmatch(line) for line in text)
        assert not terminal.screen.cursor.hidden
    assert any(line.startswith("lab: exit 1 (disproved)") for line in text)
    all_of_it = squeezed(text)
    for kernel in ("6.12.107", "6.1.176"):
        for name in BAD:
            verdict = "lost" if name == "test_dies" else "failed"
            told = re.findall(
                rf"\[\d+/18\d+s\]{verdict}{re.escape(kernel)}tests/test_it.py::{name}\(", all_of_it
            )
            assert 1 == len(told), (kernel, name, all_of_it)
    assert "\\x1b[2J\\x1b[1;1Hwipedaway" in all_of_it
    # As without a terminal, pytest's own report stands below.
    assert "12 passed" in "\n".join(text)


def test_window_changes_its_size_while_tests_run(scene: Scene) -> None:
    """The screen follows, from 60 columns to 200; nothing of a former size is left."""
    scene.little.tests(
        '@pytest.mark.parametrize("n", range(4))\ndef test_long_name(n): time.sleep(0.7)\n'
        "def test_bad(): assert False\n"
    )
    with scene.run("--kernel=6.12", columns=120, lines=30) as terminal:
        for columns, lines in ((60, 20), (200, 50), (80, 24)):
            terminal.until(lambda: pictured(terminal)[1:])
            terminal.resize(columns, lines)
            terminal.until(
                lambda: (
                    (shown := pictured(terminal))
                    and all(cell_len(line) <= columns - MARGIN for line in shown)  # noqa: B023
                )
            )
        assert 1 == terminal.end()
        text = terminal.all()

    assert not any(BAR.fullmatch(line) or GUEST.fullmatch(line) for line in text), text
    assert 1 == squeezed(text).count("s]failedtests/test_it.py::test_bad(")


def test_ctrl_c_leaves_the_terminal_whole(scene: Scene) -> None:
    """The screen goes, the report comes, the cursor is there, the settings are what they were."""
    scene.little.tests(
        "def test_bad(): assert False\ndef test_sleeps():\n"
        "    print('said ' + 'before')\n    os.write(2, b'and there')\n    time.sleep(60)\n"
    )
    with scene.run("--kernel=6.12", "-o", "junit_logging=system-out") as terminal:
        terminal.until_shown(r"0:01  tests/test_it.py::test_sleeps")
        time.sleep(UNREAD_S)
        terminal.type("\x03")
        assert 130 == terminal.end()
        text = terminal.all()

        assert not terminal.screen.cursor.hidden
        assert terminal.before == terminal.attributes()
    assert not any(BAR.fullmatch(line) or GUEST.fullmatch(line) for line in text), text
    assert "^C" not in "\n".join(text)
    files = scene.little.root / "lab-results/latest"
    record = leg_of(files)["verdicts"]["tests/test_it.py::test_sleeps"]
    log = (files / record["output"]["file"]).read_text()
    part = log[record["output"]["begin"] : record["output"]["end"]]
    assert "-- output until it was interrupted\nsaid before\nand there" in part
    assert "said before\\nand there" in (files / "report.html").read_text()
    said = [one.text or "" for one in ElementTree.parse(files / "junit.xml").iter("system-out")]
    assert any("said before\nand there" in text for text in said), said
    assert 1 == squeezed(text).count("s]failedtests/test_it.py::test_bad(")
    assert "lost: tests/test_it.py::test_sleeps: interrupted" in "\n".join(text)
    assert [line for line in text if line][-1].startswith("lab: exit 130 (interrupted)")


def test_lines_are_plain_where_nothing_may_be_painted(scene: Scene) -> None:
    """Each verdict is a line, and nothing moves the cursor."""
    scene.little.tests("def test_good(): pass\ndef test_bad(): assert False\n")
    with scene.run("--kernel=6.12", columns=120, env={"NO_COLOR": "1"}) as terminal:
        assert 1 == terminal.end()
        text = squeezed(terminal.all())

    assert not re.search(rb"\x1b\[[0-9;?]*[^0-9;?m]", terminal.raw)
    assert "lab:bootinglab:" in text
    assert 1 == text.count("s]passedtests/test_it.py::test_good(")
    assert 1 == text.count("s]failedtests/test_it.py::test_bad(")


@pytest.mark.parametrize(
    ("name", "value", "plain"),
    [
        ("TERM", "xterm", False),
        ("TERM", "dumb", True),
        ("NO_COLOR", "1", True),
        ("NO_COLOR", "", False),
        ("CI", "true", True),
    ],
)
def test_who_gets_the_screen(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, plain: bool
) -> None:
    """A terminal that can be painted, unless a person or CI wants none."""
    for word in ("NO_COLOR", "CI"):
        monkeypatch.delenv(word, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert isinstance(make_progress(print), PlainProgress)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert plain == isinstance(make_progress(print), PlainProgress)


@pytest.mark.parametrize("verbosity", [-1, 0, 1])
def test_verbose_shows_each_verdict_and_quiet_no_guest(verbosity: int) -> None:
    """-v adds the lines that there are without a terminal; -q leaves the bar alone."""
    guest = Guest(1, "6.12.107")
    with screen_of(80, verbosity=verbosity) as (screen, picture, printed):
        screen.expect(3)
        screen.phase("lane 1: booting", guest, "booting")
        screen.begin("tests/a.py::test_good", guest)
        screen.verdict("tests/a.py::test_good", Record(Verdict.PASSED, 1.0), guest)
        screen.begin("tests/a.py::test_bad", guest)
        screen.verdict("tests/a.py::test_bad", Record(Verdict.FAILED, 1.0, "because"), guest)
        screen.begin("tests/a.py::test_next", guest)
        shown = picture()

    told = squeezed(printed())
    assert BAR.fullmatch(shown[0])
    assert "1 passed, 1 failed" == shown[1].strip()
    assert (verbosity >= 0) == any(GUEST.fullmatch(line) for line in shown)
    assert (verbosity > 0) == ("s]passedtests/a.py::test_good(" in told)
    assert (verbosity > 0) == ("lab:lane1:booting" in told)
    assert 1 == told.count("s]failedtests/a.py::test_bad(1.0s)because")


def test_last_run_says_how_long_this_one_takes(scene: Scene) -> None:
    """A test that is new counts as a usual one."""
    scene.little.tests("def test_one(): time.sleep(2)\ndef test_two(): pass\n")
    times = {"6.12.107": {"tests/test_it.py::test_one": 9.0}}
    scene.little.write(".pytest_cache/v/lab/times", json.dumps(times))
    seen: set[int] = set()

    def look() -> None:
        found = (ABOUT.search(line) for line in terminal.now())
        seen.update(int(one[1]) for one in found if one)

    with scene.run("--kernel=6.12", "-p", "cacheprovider") as terminal:
        assert 0 == terminal.end(look)
    assert max(seen) in (17, 18)
    assert seen & {15, 16}
    assert not seen & {10, 11, 12, 13, 14}  # test_one was done in 2 s instead of 9


ABOUT = re.compile(r"about 0:(\d\d) left")


def test_a_test_on_the_host_may_write_to_the_terminal(scene: Scene) -> None:
    """With -s the screen makes room for it; without, pytest has its output alone."""
    scene.little.tests("""
def test_host(guest_host):
    for number in range(4):
        print(f"own line {number}", flush=True)
        time.sleep(0.3)
    assert guest_host.check_output("echo seen") == "unseen"
""")
    with scene.run("--kernel=6.12", "-s") as terminal:
        assert 1 == terminal.end()
        text = terminal.all()
    for number in range(4):
        assert f"own line {number}" in text, text

    with scene.run("--kernel=6.12") as terminal:
        assert 1 == terminal.end()
        text = terminal.all()
    at = text.index("own line 0")
    assert [f"own line {number}" for number in range(4)] == text[at : at + 4]


def test_what_is_logged_goes_above_the_screen(scene: Scene) -> None:
    """A lane may fetch a kernel while tests run, and says so on standard error."""
    scene.little.write(
        "loud.py",
        "import logging, threading, time\n"
        "def speak():\n"
        "    for number in range(8):\n"
        "        time.sleep(0.3)\n"
        "        logging.getLogger('lab.kernels').info('fetching piece %d', number)\n"
        "def pytest_collection_finish(): threading.Thread(target=speak).start()\n",
    )
    scene.little.tests("def test_one(): time.sleep(3.2)\n")
    with scene.run("--kernel=6.12", "-p", "loud", env={"PYTHONPATH": "."}) as terminal:
        assert 0 == terminal.end()
        text = terminal.all()

    assert [f"lab: fetching piece {n}" for n in range(8)] == [x for x in text if "fetching" in x]
    assert not any(BAR.fullmatch(line) or GUEST.fullmatch(line) for line in text), text


@contextmanager
def screen_of(
    columns: int, *, verbosity: int = 0
) -> Iterator[tuple[Screen, Callable[[], list[str]], Callable[[], list[str]]]]:
    """A screen in a terminal so wide, what it shows, and, behind the block, what was printed."""
    ours, theirs = os.openpty()
    size = struct.pack("HHHH", 24, columns, 0, 0)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
    os.set_blocking(ours, False)
    emulated = pyte.HistoryScreen(columns, 24, history=1000, ratio=0.5)
    raw = pyte.ByteStream(emulated)

    def take() -> None:
        with suppress(BlockingIOError):
            while True:
                raw.feed(os.read(ours, 65536))

    def picture() -> list[str]:
        live = screen._start()
        assert live is not None
        return [str(one) for one in screen._picture(live.console).renderables]

    with os.fdopen(theirs, "w", encoding="utf-8", errors="backslashreplace") as stream:
        screen = Screen(stream, verbosity=verbosity)
        try:
            yield screen, picture, lambda: [line.rstrip() for line in emulated.display]
        finally:
            screen.stop()
            take()
            os.close(ours)


HOSTILE = "tests/\x1b[2Jx.py::test_\u202e雪雪雪\ud800\u200b\x9b31m[{}]".format("ab雪" * 60)


@pytest.mark.parametrize("columns", [40, 60, 61, 80, 137, 200])
@pytest.mark.parametrize("guests", [1, 64])
def test_picture_fits_any_window(columns: int, guests: int) -> None:
    """Whatever the names are, no line is too long and there are never more lines than fit."""
    with screen_of(columns) as (screen, picture, _):
        screen.expect(1000, 4000.0)
        for number in range(1, guests + 1):
            screen.begin(HOSTILE + str(number), Guest(number, "6.12.107 as 6.6 (\x1b[1m../雪)"))
        shown = picture()

    assert min(guests + 1, 22) == len(shown)
    assert all(cell_len(line) <= columns - MARGIN for line in shown), shown
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202e\u200b]", "".join(shown))
