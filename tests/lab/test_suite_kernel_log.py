# SPDX-License-Identifier: MIT
"""`lab test` with a kernel that complains, dies or loses its words: all of them are heard."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from tests.lab.suite_support import TWO, Little

pytestmark = pytest.mark.lab


def test_kernel_complaint_fails_its_test(little: Little) -> None:
    """A complaint in the kernel's log while a test ran makes that test a splat, with the log."""
    little.tests("""
def test_before(): pass
def test_splat():
    with open(os.environ["LAB_FAKE_KMSG"], "a") as log:
        log.write("[  9.1] UBSAN: array-index-out-of-bounds in io_uring/kbuf.c:1:1\\n")
def test_after(): pass
""")

    ran = little.lab()

    assert ran.code == 1, ran.output
    assert ran.verdicts == {"test_before": "passed", "test_splat": "splat", "test_after": "passed"}
    assert "UBSAN: array-index-out-of-bounds" in ran.why("test_splat")
    assert "kernel log" in ran.output
    assert "UBSAN" in (ran.files / "kernel.log").read_text()


def test_kernel_complaint_of_a_lost_test_is_its_own(little: Little) -> None:
    """A test that is lost while the kernel complains is a splat; the next one is not blamed."""
    little.tests("""
def test_both():
    with open(os.environ["LAB_FAKE_KMSG"], "a") as log:
        log.write("[  9.1] WARNING: CPU: 0 PID: 1 at io_uring/io_uring.c:1\\n")
    os._exit(1)
def test_after(): pass
""")

    ran = little.lab()

    assert ran.code == 1, ran.output
    assert ran.verdicts == {"test_both": "splat", "test_after": "passed"}
    assert "io_uring/io_uring.c:1; and the test process ended" in ran.why("test_both")


WARNING = "[    9.0] WARNING: CPU: 0 PID: 1 at io_uring/io_uring.c:1"


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("boot", "while guest 1 booted"),
        ("push", "while guest 1 was prepared"),
        ("probe", "while it was probed"),
        ("hello", "while pytest started in the guest"),
        ("collected", "while pytest started in the guest"),
        ("done", "after the last test"),
    ],
)
def test_complaint_outside_of_tests_disproves_the_run(
    little: Little, when: str, words: str
) -> None:
    """Whenever no test runs, a complaint of the kernel makes the run 1, and says when it was."""
    little.tests(TWO)

    ran = little.lab(fake={"says_at": {when: WARNING}})

    assert ran.code == 1, ran.output
    assert ran.verdicts == {"test_one": "passed", "test_two": "passed"}
    assert f"the kernel complained {words}: {WARNING}" in ran.last_line.replace("9.000000", "9.0")
    (failure,) = ElementTree.parse(ran.files / "junit.xml").getroot().iter("failure")
    assert "the kernel complained" in str(failure.get("message"))


def test_kernel_that_dies_while_it_boots_disproves_the_run(little: Little) -> None:
    """A kernel that panics before there is an agent is told by its console."""
    little.tests(TWO)

    ran = little.lab(fake={"says_at": {"boot": "[ 0.5] Kernel panic - not syncing: no init"}})

    assert ran.code == 1, ran.output
    assert "the kernel complained while guest 1 booted: [ 0.5] Kernel panic" in ran.last_line


BETWEEN = """
import os

def pytest_collection_finish(session):
    side = session.config.pluginmanager.get_plugin("lab-guest-side")
    if side is None or os.path.exists("died-once"):
        return
    listen, heard = side._control.listen, []

    def complain_at_the_second():
        heard.append(listen())
        if len(heard) == 2:
            with open(os.environ["LAB_FAKE_KMSG"], "a") as log:
                log.write("{warning}\\n")
            open("died-once", "w").close()
            os._exit(5)
        return heard[-1]

    side._control.listen = complain_at_the_second
"""


def test_complaint_between_tests_outlives_the_process(little: Little) -> None:
    """A complaint after one test and before the next, whose process then dies, is the run's, and
    the next test, tried again in a fresh process, keeps its verdict."""
    little.tests(TWO)
    little.write("tests/conftest.py", BETWEEN.format(warning=WARNING))

    ran = little.lab()

    assert ran.code == 1, ran.output
    assert ran.verdicts == {"test_one": "passed", "test_two": "passed"}
    assert "after tests/test_it.py::test_one and before tests/test_it.py::test_two" in ran.last_line
    assert "WARNING: CPU: 0 PID: 1 at io_uring/io_uring.c:1" in ran.last_line


@pytest.mark.parametrize("dies", [False, True])
def test_lost_lines_of_the_log_are_not_proved(little: Little, dies: bool) -> None:
    """Lines that the kernel dropped unread may have been a complaint: nothing is proved, and the
    gap is named, of a guest that lives as of one that died."""
    little.tests(f"""
def test_one():
    with open(os.environ["LAB_FAKE_KMSG"], "a") as log:
        log.write("** 17 printk messages dropped **\\n")
    if {dies}: os.kill(os.getpid(), signal.SIGKILL)
def test_two(): pass
""")

    ran = little.lab(fake={"vanishes": dies})

    assert ran.code == 3, ran.output
    lost = "the console of the guest that died lacks 17 lines" if dies else "are lost (17)"
    assert lost in ran.output
    assert "written while tests/test_it.py::test_one ran" in ran.output


def test_second_complaint_is_not_hidden_by_an_explained_one(little: Little) -> None:
    """An erratum explains the complaint that it names and no other: the rest is a splat."""
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
splat = 'at io_uring/kbuf\\.h:'
""",
    )
    little.tests(
        """
@pytest.mark.needs("INC")
def test_it():
    with open(os.environ["LAB_FAKE_KMSG"], "a") as log:
        print("[    2.0] WARNING: CPU: 0 PID: 7 at io_uring/kbuf.h:146 f+0x1/0x2", file=log)
        print("[    2.1] BUG: KASAN: use-after-free in g+0x1/0x2", file=log)
def test_fine(): pass
""",
        node.partition("::")[0],
    )

    ran = little.lab()

    assert ran.code == 1, ran.output
    assert ran.verdicts == {"test_it": "splat", "test_fine": "passed"}
    assert "KASAN" in ran.why("test_it")
    assert "kbuf.h" not in ran.why("test_it")


PANIC = """
def test_before(): pass
def test_panic():
    with open(os.environ["LAB_FAKE_KMSG"], "a") as log:
        log.write("[    2.0] Kernel panic - not syncing: fake\\n")
    {then}
def test_after(): pass
"""


@pytest.mark.parametrize(
    ("then", "fake"),
    [
        ("time.sleep(60)", {}),
        # The process is gone first, and that the kernel took it shows a moment later.
        ("os.kill(os.getpid(), signal.SIGKILL)", {"panics_after_s": 0.5}),
    ],
    ids=["guest-first", "process-first"],
)
def test_panic_is_its_tests_and_brings_a_fresh_guest(
    little: Little, then: str, fake: dict[str, object]
) -> None:
    """A panic in a test is a splat of that test, in the kernel's words, whoever is seen to die
    first; the rest runs in a second guest with its own files."""
    little.tests(PANIC.format(then=then))

    ran = little.lab(fake=fake)

    assert ran.code == 1, ran.output
    assert ran.verdicts == {"test_before": "passed", "test_panic": "splat", "test_after": "passed"}
    assert "Kernel panic - not syncing: fake; and the guest's kernel panicked" in ran.why(
        "test_panic"
    )
    assert "2 guests were needed" in ran.output
    assert (ran.files / "guest-2/console.log").exists()
    assert "Kernel panic" in (ran.files / "kernel.log").read_text()


@pytest.mark.parametrize(("cpus", "verdict", "code"), [(2, "lost", 3), (1, "splat", 1)])
def test_guest_that_its_emulator_killed_is_lost(
    little: Little, cpus: int, verdict: str, code: int
) -> None:
    """A death that the emulator is known to cause is not the kernel's, and the report says so;
    where it cannot be, it is."""
    little.tests("""
def test_int3():
    with open(os.environ["LAB_FAKE_KMSG"], "a") as log:
        log.write("[ 2.0] Oops: int3: 0000 [#1]\\n[ 2.1] Kernel panic - not syncing: Fatal\\n")
    time.sleep(60)
def test_after(): pass
""")

    ran = little.lab(fake={"cpus": cpus})

    assert ran.code == code, ran.output
    assert ran.verdicts == {"test_int3": verdict, "test_after": "passed"}
    assert ("QEMU before 10 can cause this" in ran.why("test_int3")) is (cpus == 2)


def test_complaint_before_the_emulators_fault_counts(little: Little) -> None:
    """What the kernel complained of before its emulator killed it is not excused."""
    little.tests("""
def test_both():
    with open(os.environ["LAB_FAKE_KMSG"], "a") as log:
        log.write("[ 2.0] BUG: KASAN: use-after-free in f+0x1/0x2\\n[ 2.0] Oops: int3: 0000\\n")
        log.write("[ 2.1] Kernel panic - not syncing: Fatal\\n")
    time.sleep(60)
""")

    ran = little.lab(fake={"cpus": 2})

    assert ran.code == 1, ran.output
    assert "KASAN" in ran.why("test_both")
    assert "int3" not in ran.why("test_both").partition("; and")[0]
