# SPDX-License-Identifier: MIT
"""`lab test` with an honest guest and tests of every kind."""

from __future__ import annotations

import os
import py_compile
import xml.etree.ElementTree as ElementTree

import pytest

from tests.lab.suite_support import TWO, Little

pytestmark = pytest.mark.lab


def test_everything_proved_is_0(little: Little) -> None:
    """Tests that pass, and one whose capability the probe denies, are a green run."""
    little.tests("""
def test_one(): pass
@pytest.mark.needs("INC")
def test_inc(): pass
@pytest.mark.needs("NAPI")
def test_napi(): assert False
""")

    ran = little.lab()

    assert ran.code == 0, ran.output
    assert ran.verdicts == {"test_one": "passed", "test_inc": "passed", "test_napi": "skipped"}
    assert ran.why("test_napi").startswith("needs NAPI: not observed on ")
    assert ran.last_line == "lab: exit 0 (proved): 2 passed, 1 skipped"


def test_tree_that_is_too_heavy_is_said_before_a_guest_boots(little: Little) -> None:
    """With what is large, and what to leave out; each test is named as one that never ran."""
    little.tests("def test_one(): pass\n")
    with (little.root / "tests/model.bin").open("wb") as sparse:
        sparse.truncate(2 << 30)

    ran = little.lab()

    assert ran.code == 3, ran.output
    assert ran.verdicts == {"test_one": "never ran"}
    assert "the tree that travels to a guest has 2.0 GiB, more than the 384 MiB" in ran.last_line
    assert 'exclude = ["tests/model.bin"]' in ran.output
    assert ran.results is not None
    assert ran.results["guests"] == []


def test_garbage_of_tests_is_collected_and_nothing_else(little: Little) -> None:
    """In a guest the collector is on and finds what a test drops; what pytest itself is made of is
    no longer among what it looks at, which under emulation takes a second every time."""
    little.tests("""
import gc, weakref
class Node: pass
def test_garbage():
    assert gc.isenabled()
    assert 10_000 < gc.get_freeze_count() > 10 * len(gc.get_objects())
    node = Node()
    node.itself, gone = node, weakref.ref(node)
    del node
    gc.collect()
    assert gone() is None
""")

    ran = little.lab()

    assert ran.code == 0, ran.output
    assert ran.verdicts == {"test_garbage": "passed"}


def test_failure_is_1_and_named(little: Little) -> None:
    """A failing test is named with the line that runs it again, and its traceback comes home."""
    little.tests("""
@pytest.mark.parametrize("x", ["a b"])
def test_bad(x):
    print("printed in the guest")
    assert x == "c"
def test_good(): pass
""")

    ran = little.lab()

    assert ran.code == 1, ran.output
    assert ran.verdicts == {"test_bad[a b]": "failed", "test_good": "passed"}
    assert """make lab KERNEL=6.12.107 ARGS="'tests/test_it.py::test_bad[a b]'"\n""" in ran.output
    assert "AssertionError" in ran.output
    assert "printed in the guest" in ran.output
    assert "tests/test_it.py::test_bad[a b] failed" in ran.last_line


def test_dead_process_loses_its_test_only(little: Little) -> None:
    """What ends Python inside a test loses that test; the others have their verdicts."""
    little.tests("""
def test_before(): pass
def test_exit(): os._exit(0)
def test_between(): pass
def test_segfault(): os.kill(os.getpid(), signal.SIGSEGV)
def test_kill(): os.kill(os.getpid(), signal.SIGKILL)
def test_close(): os.closerange(3, 4096)
def test_pytest_exit(): pytest.exit("enough")
def test_after_exit(): pass
def test_interrupt(): raise KeyboardInterrupt
def test_after(): pass
""")

    ran = little.lab()

    assert ran.code == 3, ran.output
    assert ran.verdicts == {
        "test_before": "passed",
        "test_exit": "lost",
        "test_between": "passed",
        "test_segfault": "lost",
        "test_kill": "lost",
        "test_close": "lost",
        "test_pytest_exit": "lost",
        "test_after_exit": "passed",
        "test_interrupt": "lost",
        "test_after": "passed",
    }
    assert "ended with status 0" in ran.why("test_exit")
    assert "killed by SIGSEGV" in ran.why("test_segfault")
    assert "killed by SIGKILL" in ran.why("test_kill")
    assert "pytest ended before the test did" in ran.why("test_pytest_exit")
    assert "Fatal Python error: Segmentation fault" in ran.output
    assert "test_exit lost and 5 more" in ran.last_line


def test_file_that_a_test_left_for_the_next_pytest_is_said(little: Little) -> None:
    """The process that goes on after a death might load it in place of what was sent."""
    little.tests("""
def test_leaves():
    for name in ("tests/conftest.py", "notes.txt", "new.py"): os.mknod(name)
def test_exit(): os._exit(0)
def test_after(): pass
def test_again(): os._exit(0)
def test_last(): pass
""")

    ran = little.lab()

    assert ran.code == 3, ran.output
    assert ran.verdicts["test_after"] == ran.verdicts["test_last"] == "passed"
    assert [
        "tests left new.py, tests/conftest.py in the guest's tree, and pytest began again there "
        "after tests/test_it.py::test_exit: what ran from then on may not be what was sent"
    ] == (ran.results or {})["problems"]


def test_lost_test_is_not_tried_again(little: Little) -> None:
    """A test that ends its process runs once: a second try could hide what it did."""
    little.tests("""
def test_deed():
    with open(os.environ["LAB_FAKE_KMSG"], "a") as log:
        log.write("deed done\\n")
    os._exit(3)
def test_after(): pass
""")

    ran = little.lab()

    assert ran.verdicts == {"test_deed": "lost", "test_after": "passed"}
    assert 1 == (ran.files / "console.log").read_text().count("deed done")


def test_hang_is_killed_and_shows_its_stack(little: Little) -> None:
    """A test without end is lost at its limit, with every thread's stack in the report."""
    little.tests("""
def test_hang():
    while True: time.sleep(3600)
def test_after(): pass
""")

    ran = little.lab("--lab-timeout", "2")

    assert ran.code == 3, ran.output
    assert ran.verdicts == {"test_hang": "lost", "test_after": "passed"}
    assert "no verdict within 2 s" in ran.why("test_hang")
    assert "Fatal Python error: Aborted" in ran.output
    assert "in test_hang" in ran.output


def test_hang_that_ignores_the_request_is_killed(little: Little) -> None:
    """A test that even ignores SIGABRT is lost all the same."""
    little.tests("""
def test_hang():
    signal.signal(signal.SIGABRT, signal.SIG_IGN)
    while True: time.sleep(3600)
def test_after(): pass
""")

    ran = little.lab("--lab-timeout", "1")

    assert ran.verdicts == {"test_hang": "lost", "test_after": "passed"}


def test_run_of_losses_is_given_up(little: Little) -> None:
    """When test after test is lost, the run ends and names what never ran."""
    little.tests("""
@pytest.mark.parametrize("n", range(8))
def test_deed(n): os._exit(1)
""")

    ran = little.lab()

    assert ran.code == 3, ran.output
    assert 5 == list(ran.verdicts.values()).count("lost")
    assert 3 == list(ran.verdicts.values()).count("never ran")
    assert "never ran, because given up: 5 tests in a row were lost:" in ran.output
    assert 1 == ran.output.count("not proved: given up")
    assert "    tests/test_it.py::test_deed[7]\n" in ran.output


def test_process_that_dies_between_tests_blames_neither(little: Little) -> None:
    """A process that is gone before the next test began costs neither test its verdict, but the
    run is not green."""
    little.tests(TWO)
    little.write(
        "tests/conftest.py",
        """
import os

def pytest_collection_finish(session):
    side = session.config.pluginmanager.get_plugin("lab-guest-side")
    if side is None or os.path.exists("died-once"):
        return
    listen, heard = side._control.listen, []

    def die_at_the_second():
        heard.append(listen())
        if len(heard) == 2:
            open("died-once", "w").close()
            os._exit(5)
        return heard[-1]

    side._control.listen = die_at_the_second
""",
    )

    ran = little.lab()

    assert ran.code == 3, ran.output
    assert ran.verdicts == {"test_one": "passed", "test_two": "passed"}
    assert "status 5" in ran.last_line
    assert "after tests/test_it.py::test_one and before tests/test_it.py::test_two" in ran.last_line


def test_forked_child_that_returns_cannot_speak(little: Little) -> None:
    """A child that a test forked and that comes back into pytest says nothing to the host."""
    little.tests("""
def test_fork():
    if os.fork():
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 97
def test_after(): pass
""")

    ran = little.lab()

    assert ran.code == 0, ran.output
    assert ran.verdicts == {"test_fork": "passed", "test_after": "passed"}


def test_unconfirmed_excuse_is_a_failure(little: Little) -> None:
    """A skip that the probe does not confirm, and any xfail, however marked, is a failure."""
    little.tests("""
def test_good(): pass
def test_skip(): pytest.skip("not today")
def test_observed(): pytest.skip("needs INC: not observed")
def test_unknown(): pytest.skip("needs FLYING: no wings")
def test_import(): pytest.importorskip("no_such_module")
@pytest.mark.skipif(True, reason="old kernel")
def test_skipif(): pass
def test_xfail(): pytest.xfail("known")
@pytest.mark.xfail
def test_marked(): assert False
@pytest.mark.xfail(strict=False)
def test_passes(): pass
@pytest.mark.xfail(run=False)
def test_not_run(): pass
""")

    ran = little.lab()

    assert ran.code == 1, ran.output
    assert {"test_good"} == {name for name, v in ran.verdicts.items() if v != "failed"}
    for test, words in {
        "test_skip": "skip refused: 'not today'",
        "test_observed": "skip refused: INC is observed",
        "test_unknown": "knows no capability 'FLYING'",
        "test_import": "skip refused",
        "test_skipif": "skip refused: 'old kernel'",
        "test_xfail": "plain xfail refused",
        "test_marked": "plain xfail refused",
        "test_passes": "plain xfail refused",
        "test_not_run": "plain xfail refused",
    }.items():
        assert words in ran.why(test)


@pytest.mark.parametrize(
    "text",
    [
        "pytest.skip('whole file', allow_module_level=True)",
        "pytest.importorskip('no_such_module')",
        "@pytest.mark.parametrize('x', [])\ndef test_x(x): pass",
        "import no_such_module",
    ],
)
def test_file_that_hides_its_tests_is_an_error(little: Little, text: str) -> None:
    """A module that skips itself, an empty parameter set and an import error end the run."""
    little.tests(text, "tests/test_hiding.py")
    little.tests(TWO)

    ran = little.lab()

    assert ran.code == 1, ran.output
    assert "tests/test_hiding.py" in ran.last_line
    assert ran.verdicts == {"test_one": "never ran", "test_two": "never ran"}


def test_nothing_passed_is_3(little: Little) -> None:
    """A run in which every test is skipped, for good reasons, proves nothing."""
    little.tests("@pytest.mark.needs('NAPI')\ndef test_napi(): pass\n")

    ran = little.lab()

    assert ran.code == 3, ran.output
    assert ran.last_line == "lab: exit 3 (not proved): nothing passed (1 skipped)"


def test_io_uring_forbidden_is_a_failure_with_the_sentence(little: Little) -> None:
    """Where io_uring cannot be used, a test that needs it fails with the probe's sentence."""
    sentence = "kernel.io_uring_disabled is 2: set it to 0"
    text = (little.root / "ioxide/__init__.py").read_text()
    little.write(
        "ioxide/__init__.py", text.replace("CANNED_ERROR = None", f"CANNED_ERROR = {sentence!r}")
    )
    little.tests("@pytest.mark.needs('NAPI')\ndef test_napi(): pass\ndef test_good(): pass\n")

    ran = little.lab()

    assert ran.code == 1, ran.output
    assert ran.verdicts == {"test_napi": "failed", "test_good": "passed"}
    assert sentence in ran.why("test_napi")


def test_guest_proves_who_it_is(little: Little) -> None:
    """A test can hold release, nonce and tree against the host's; on the host it fails."""
    little.tests("""
import hashlib
def test_identity(lab_identity):
    expected = lab_identity.expected
    assert expected.kernel.startswith("6.12")
    assert lab_identity.release == expected.release == os.environ["LAB_KERNEL_RELEASE"]
    assert lab_identity.nonce == expected.nonce == os.environ["LAB_NONCE"]
    assert lab_identity.tree_sha256 == expected.tree_sha256 == os.environ["LAB_TREE_SHA256"]
""")

    guest, host = little.lab(), little.pytest()

    assert guest.code == 0, guest.output
    assert guest.results is not None
    assert 16 == len(guest.results["guests"][0]["nonce"])
    assert host.code == 1, host.output
    assert "not in a guest of the lab" in host.output


def test_junit_names_every_test(little: Little) -> None:
    """JUnit goes where it is asked to go, and beside the console if nobody asks."""
    little.tests("def test_a(): pass\ndef test_b(): os._exit(0)\n")

    ran = little.lab("--junitxml=mine.xml")
    suite = ElementTree.parse(little.root / "mine.xml").getroot()

    assert {"test_a", "test_b"} == {case.get("name") for case in suite.iter("testcase")}
    assert 1 == sum(1 for _ in suite.iter("failure"))
    assert not (ran.files / "junit.xml").exists()
    assert (little.lab().files / "junit.xml").exists()


def test_module_fixture_lives_as_long_as_its_module(little: Little) -> None:
    """The guest is told which test comes next, so a module's fixture is set up once."""
    little.tests("""
made = []
@pytest.fixture(scope="module")
def thing():
    made.append(1)
    yield len(made)
def test_a(thing): assert thing == 1
def test_b(thing): assert thing == 1
""")

    assert little.lab().code == 0


def test_teardown_that_fails_is_a_failure(little: Little) -> None:
    """A test whose fixture fails after it has not passed."""
    little.tests("""
@pytest.fixture
def thing():
    yield
    raise RuntimeError("late")
def test_a(thing): pass
""")

    ran = little.lab()

    assert ran.code == 1, ran.output
    assert ran.verdicts == {"test_a": "failed"}


@pytest.mark.parametrize("path", ["tests/helper.py", "ioxide/helper.py"])
def test_guest_runs_the_sources_whose_hash_is_compared(little: Little, path: str) -> None:
    """A compiled module left over from a source of the same size and time is not what runs."""
    package = path.partition("/")[0]
    little.tests(f"""
def test_it():
    from {package} import helper
    assert helper.VALUE == "new"
""")
    little.write(path, "VALUE = 'old'\n")
    source = little.root / path
    py_compile.compile(os.fspath(source))
    before = source.stat().st_mtime_ns
    little.write(path, "VALUE = 'new'\n")
    os.utime(source, ns=(before, before))

    ran = little.lab(PYTHONDONTWRITEBYTECODE="")

    assert ran.code == 0, ran.output
    assert ran.verdicts == {"test_it": "passed"}
