# SPDX-License-Identifier: MIT
"""`@pytest.mark.guest`: a test asks for another guest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.suite.shares import Shares
from lab.wishes import Wishes
from tests.lab.suite_support import Little, Ran

pytestmark = pytest.mark.lab


def guests(ran: Ran) -> list[list[str]]:
    """What each guest that came up was asked for, in order."""
    assert ran.results is not None, ran.output
    return [guest["wishes"] for guest in ran.results["guests"]]


FIVE = """
def test_usual(): pass
@pytest.mark.guest(cpus=2, sysctl={"vm.swappiness": 7})
def test_one(): assert False
def test_usual_too(): pass
@pytest.mark.guest(sysctl={"vm.swappiness": "7"}, cpus=2)
class TestBoth:
    def test_two(self): pass
    @pytest.mark.guest(memory="1G", cpus=1)
    def test_three(self): pass
"""


def test_tests_with_the_same_wishes_share_a_guest(little: Little) -> None:
    """Three guests for five tests, the usual one first; a mark on a test stands above its class's
    and is added to it; report, JSON, JUnit and the line that runs a test again say so."""
    little.tests(FIVE)

    ran = little.lab("--lab-guests", "1")

    assert ran.code == 1, ran.output
    two, three = ["--cpus=2", "--sysctl=vm.swappiness=7"], ["--memory=1024M"]
    assert guests(ran) == [[], two, ["--cpus=1", *three, "--sysctl=vm.swappiness=7"]]
    assert ran.verdicts == {
        **dict.fromkeys(("test_usual", "test_usual_too", "test_two", "test_three"), "passed"),
        "test_one": "failed",
    }
    assert ran.results is not None
    own = {name.rpartition("::")[2]: v.get("guest") for name, v in ran.results["verdicts"].items()}
    assert (own["test_usual"], own["test_one"], own["test_two"]) == (None, two, two)
    again = "T=tests/test_it.py::test_one  # in a guest with --cpus=2 --sysctl=vm.swappiness=7"
    assert again in ran.output
    assert "slower than here, with --cpus=2 --sysctl=vm.swappiness=7" in ran.output
    junit = (ran.files / "junit.xml").read_text()
    assert junit.count('name="guest" value="--cpus=2 --sysctl=vm.swappiness=7"') == 2


def test_wishes_of_the_run_are_below_those_of_a_test(little: Little) -> None:
    """What --cpus says holds where the mark says nothing, and a mark that asks for what there is
    anyway boots nothing."""
    little.tests(
        "@pytest.mark.guest(memory=512)\ndef test_one(): pass\n"
        "@pytest.mark.guest(cpus=2)\ndef test_two(): pass\n"
    )

    ran = little.lab("--cpus=2")

    assert ran.code == 0, ran.output
    assert guests(ran) == [["--cpus=2"], ["--cpus=2", "--memory=512M"]]


def test_a_guest_that_cannot_be_had_costs_its_tests_alone(little: Little) -> None:
    """They are lost with the reason, as many as they are; the others run, and nothing is proved."""
    lost = "".join(f"@marked\ndef test_lost_{n}(): pass\n" for n in range(7))
    little.tests(f'marked = pytest.mark.guest(modules=["nosuch"])\n{lost}def test_good(): pass\n')

    ran = little.lab()

    assert ran.code == 3, ran.output
    assert ran.verdicts == {"test_good": "passed"} | {f"test_lost_{n}": "lost" for n in range(7)}
    why = "there is no guest with --module=nosuch: 9.9 has no module nosuch"
    assert {ran.why(f"test_lost_{n}") for n in range(7)} == {why}


def test_a_guest_in_which_no_pytest_starts_costs_its_tests_alone(little: Little) -> None:
    """One with too little memory, say: those of the next guest run."""
    little.tests(
        "@pytest.mark.guest(modules=['choking'])\ndef test_lost(): pass\n"
        "@pytest.mark.guest(cpus=2)\ndef test_other(): pass\n"
        "def test_usual(): pass\n"
    )

    ran = little.lab("--lab-guests", "1")

    assert ran.code == 3, ran.output
    assert ran.verdicts == {"test_lost": "lost", "test_other": "passed", "test_usual": "passed"}
    assert ran.why("test_lost").startswith("a guest with --module=choking is of no use: ")


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("dying", "the guest's kernel panicked"),
        ("mute", "pytest in the guest said no hello"),
    ],
)
def test_a_guest_lost_before_its_first_test_costs_its_tests_alone(
    little: Little, module: str, words: str
) -> None:
    """With the tree half way, or with a pytest that says nothing."""
    little.tests(
        f"@pytest.mark.guest(modules=['{module}'])\ndef test_lost(): pass\n"
        "@pytest.mark.guest(cpus=2)\ndef test_other(): pass\n"
        "def test_usual(): pass\n"
    )

    ran = little.lab("--lab-guests", "1")

    assert ran.code == 3, ran.output
    assert ran.verdicts == {"test_lost": "lost", "test_other": "passed", "test_usual": "passed"}
    assert f"a guest with --module={module} is of no use: {words}" in ran.why("test_lost")


PANIC = "[    0.700000] Kernel panic - not syncing: fake"


@pytest.mark.parametrize(
    ("wishes", "fake", "complaint"),
    [("cpus=2", {"says_at": {"boot": PANIC}}, PANIC), ('modules=["faulty"]', {}, "BUG: bad page")],
    ids=["died", "refused"],
)
def test_what_the_kernel_of_a_guest_that_cannot_be_had_said_counts(
    little: Little, wishes: str, fake: dict[str, Any], complaint: str
) -> None:
    """Its tests are lost, and the run is disproved: the kernel complained, of a module, say."""
    little.tests(f"@pytest.mark.guest({wishes})\ndef test_one(): pass\n")

    ran = little.lab(fake=fake)

    assert ran.code == 1, ran.output
    assert ran.verdicts == {"test_one": "lost"}
    assert f"the kernel complained while guest 1 booted: {complaint}" in ran.output.replace(
        "[    1.5] ", ""
    )


def test_what_a_guest_set_up_is_torn_down_with_its_last_test(little: Little) -> None:
    """A fixture of the module is one per guest, and what its end comes to is the last test's."""
    little.tests(
        "@pytest.fixture(scope='module', autouse=True)\ndef shared():\n"
        "    yield\n    assert False\n"
        "def test_usual(): pass\n"
        "def test_usual_too(): pass\n"
        "@pytest.mark.guest(cpus=2)\ndef test_other(): pass\n"
    )

    ran = little.lab("--lab-guests", "1")

    assert ran.code == 1, ran.output
    assert ran.verdicts == {
        "test_usual": "passed",
        "test_usual_too": "failed",
        "test_other": "failed",
    }


def test_a_skip_is_proved_by_the_guest_of_its_test(little: Little) -> None:
    """What a module brings is there in its guest alone, whichever guest is probed first."""
    text = (little.root / "ioxide/__init__.py").read_text()
    there = 'finding("veth" in os.environ.get("LAB_FAKE_WISHES", ""), "no veth")'
    little.write("ioxide/__init__.py", text.replace('finding(False, "counter stayed 0")', there))
    needs = "@pytest.mark.needs('NAPI')\n"
    marked = f"@pytest.mark.guest(modules=['veth'])\n{needs}def test_with(): pass\n"
    little.tests(f"{needs}def test_without(): pass\n{marked}def test_usual(): pass\n")

    ran = little.lab("--lab-guests", "1")

    assert ran.code == 0, ran.output
    passed = dict.fromkeys(("test_with", "test_usual"), "passed")
    assert ran.verdicts == passed | {"test_without": "skipped"}

    alone = little.lab("-k", "test_with and not out")
    assert alone.code == 0, alone.output
    assert alone.verdicts == {"test_with": "passed"}
    note = "no usual guest was probed, so tests/kernels/expected.toml was not compared"
    assert note in alone.output


WRONG = """
@pytest.mark.guest(2)
def test_one(): pass
@pytest.mark.guest(cpus=0, memory="1Q", colour="red")
def test_two(): pass
@pytest.mark.guest(cmdline="lab.nonce=1")
@pytest.mark.parametrize("n", [1, 2])
def test_three(n): pass
"""


def test_a_mark_that_cannot_be_meant_is_refused_at_collection(little: Little) -> None:
    """All of them at once, before anything boots; on the host the mark means nothing."""
    little.tests(WRONG)
    names = "cpus, memory, sysctl, cmdline, modules, devices"

    ran = little.lab()

    assert ran.code == 2, ran.output
    for sentence in (
        f"test_one: guest(2): the mark takes {names}, each by its name",
        "test_two: guest(): cpus is 0; a guest has 1 to 64 processors",
        "test_two: guest(): memory is '1Q', which is no size: a number of MiB, or one like 768M",
        f"test_two: guest(): colour is unknown; a guest is asked for {names}",
        "test_three[2]: guest(): cmdline has 'lab.nonce=1', which is the lab's own to set",
    ):
        assert f"tests/test_it.py::{sentence}" in ran.output
    assert ran.results is None

    here = little.pytest("tests/test_it.py")
    assert here.code == 0, here.output
    assert "4 passed" in here.output


def test_tests_are_handed_out_by_their_guest() -> None:
    """The usual guest's in runs of neighbours, then each other guest's together."""
    two, four = Wishes(cpus=2), Wishes(cpus=4)
    names = [f"a.py::{n}" for n in range(12)] + ["b.py::0", "b.py::1"]
    own = {"a.py::1": two, "a.py::2": four, "b.py::1": two}
    how = {"times": 1, "seconds": {}, "keep_order": False}
    plan = cast("Any", SimpleNamespace(selected=names, own_wishes=own, **how))

    shares = Shares(plan, 2)
    handed = [[turn.name for turn in share] for share in iter(shares.take, ())]

    usual = [name for name in names if name not in own]
    assert handed == [usual[:8], usual[8:10], ["b.py::0"], ["a.py::1", "b.py::1"], ["a.py::2"]]
