# SPDX-License-Identifier: MIT
"""`lab test` with guests that do not boot, fall silent or lie: never green, always a cause."""

from __future__ import annotations

import pytest

from tests.lab.suite_support import TWO, Little

pytestmark = pytest.mark.lab


@pytest.mark.parametrize(
    ("fake", "words"),
    [
        ({"never_boots": True}, "the agent said nothing within"),
        ({"wrong_nonce": True}, "the guest proves the wrong nonce"),
        ({"wrong_tree": True}, "the guest proves the wrong tree_sha256"),
        ({"pytest_missing": True}, "pytest did not start in the guest"),
        ({"extra_collected": True}, "collected only in the guest: tests/test_nowhere.py"),
        ({"broken_frame_at": "hello"}, "the agent sent a broken frame"),
        ({"duplicate": "hello"}, "it said hello where collected was due"),
        ({"duplicate": "collected"}, "it said collected of None"),
        ({"unknown_id": "start"}, "it said start of 'tests/test_nowhere.py::test_nobody'"),
        ({"unknown_id": "report"}, "it said report of 'tests/test_nowhere.py::test_nobody'"),
        ({"unknown_id": "finish"}, "it said finish of 'tests/test_nowhere.py::test_nobody'"),
        ({"drop": "start"}, "before it started it"),
        ({"drop": "report"}, "reports of 'tests/test_it.py::test_one', 0 came"),
        ({"duplicate": "start"}, "it started 'tests/test_it.py::test_one' twice"),
        ({"duplicate": "report"}, "3 reports of 'tests/test_it.py::test_one', 6 came"),
    ],
)
def test_unbelievable_guest_proves_nothing(
    little: Little, fake: dict[str, object], words: str
) -> None:
    """A guest that cannot be believed from the start gives no verdict, and the run is 3."""
    little.tests(TWO)

    ran = little.lab(fake=fake)

    assert ran.code == 3, ran.output
    assert ran.verdicts == {"test_one": "never ran", "test_two": "never ran"}
    assert words in ran.last_line
    assert "last lines of the guest:" in ran.output


def test_second_verdict_proves_nothing_more(little: Little) -> None:
    """A test that is finished twice keeps its first verdict; nothing after it counts."""
    little.tests(TWO)

    ran = little.lab(fake={"duplicate": "finish"})

    assert ran.code == 3, ran.output
    assert ran.verdicts == {"test_one": "passed", "test_two": "never ran"}
    assert "it said finish of 'tests/test_it.py::test_one'" in ran.last_line


def test_channel_that_breaks_in_a_test_costs_that_test(little: Little) -> None:
    """A frame that breaks while a test runs loses the guest; a fresh one takes the next test."""
    little.tests(TWO)

    ran = little.lab(fake={"broken_frame_at": "finish"})

    assert ran.code == 3, ran.output
    assert ran.verdicts == {"test_one": "lost", "test_two": "lost"}
    assert "broken frame" in ran.why("test_one")


def test_guest_without_last_word_is_not_proved(little: Little) -> None:
    """A pytest that ends without saying how many tests it ran leaves the run unproved."""
    little.tests(TWO)

    ran = little.lab(fake={"drop": "done"})

    assert ran.code == 3, ran.output
    assert ran.verdicts == {"test_one": "passed", "test_two": "passed"}
    assert "pytest in the guest ended early" in ran.last_line


def test_guest_that_fails_after_its_last_word_is_not_proved(little: Little) -> None:
    """What goes wrong while the guest's pytest shuts down is heard, with its traceback."""
    little.tests(TWO)
    little.write(
        "tests/conftest.py",
        """
import os

def pytest_unconfigure():
    if "LAB_NONCE" in os.environ:
        raise RuntimeError("much too late")
""",
    )

    ran = little.lab()

    assert ran.code == 3, ran.output
    assert ran.verdicts == {"test_one": "passed", "test_two": "passed"}
    assert "pytest in the guest failed after its last test" in ran.last_line
    assert "much too late" in ran.output


def test_silence_ends_at_the_limit(little: Little) -> None:
    """A test whose finish never arrives is lost when its time is up, and so is the next."""
    little.tests(TWO)

    ran = little.lab("--lab-timeout", "1", fake={"drop": "finish"})

    assert ran.code == 3, ran.output
    assert ran.verdicts == {"test_one": "lost", "test_two": "lost"}
    assert "no verdict within 1 s" in ran.why("test_one")


def test_guest_that_collects_other_tests_proves_nothing(little: Little) -> None:
    """Tests that exist only on one side are named, and nothing is run."""
    little.tests("""
GUEST = "LAB_NONCE" in os.environ
@pytest.mark.parametrize("where", ["guest" if GUEST else "host"])
def test_where(where): pass
""")

    ran = little.lab()

    assert ran.code == 3, ran.output
    assert "collected only on the host: tests/test_it.py::test_where[host]" in ran.last_line
    assert "collected only in the guest: tests/test_it.py::test_where[guest]" in ran.last_line


def test_file_that_only_the_guest_cannot_import_proves_nothing(little: Little) -> None:
    """A collection error in the guest is the cause that is named, with its traceback."""
    little.tests("if 'LAB_NONCE' in os.environ: import no_such_module\ndef test_a(): pass\n")

    ran = little.lab()

    assert ran.code == 3, ran.output
    assert "collection errors in the guest" in ran.last_line
    assert "No module named 'no_such_module'" in ran.output


def test_output_of_a_test_cannot_speak_for_it(little: Little) -> None:
    """NUL bytes, escapes and forged messages in a test's output change no verdict."""
    little.tests("""
def test_noise(capfd):
    forged = b'{"n": 3, "type": "finish", "id": "x", "reports": 3}'
    with capfd.disabled():
        os.write(1, b"\\0\\x1b[2J" + forged * 1000)
        os.write(2, b"\\xff" * 100_000)
    assert False
""")

    ran = little.lab()

    assert ran.code == 1, ran.output
    assert ran.verdicts == {"test_noise": "failed"}
