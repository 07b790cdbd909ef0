# SPDX-License-Identifier: MIT
"""xfailed(erratum): who may end so, and when its presence or absence is a surprise."""

from __future__ import annotations

import pytest

from ioxide._errata.present import ErratumPresent
from lab.facts.verdicts import Verdict
from lab.rules.errata import Catalogue, Erratum
from lab.suite.errata import Judged, judge, note, raised
from tests.lab.suite_support import PRESENT, REPRODUCERS, Little

pytestmark = pytest.mark.lab

NODE = f"{REPRODUCERS}/test_errata_it.py::test_it"
SAID = {"id": "IOX-ERR-001", "evidence": "res=1"}
CATALOGUE = Catalogue(
    (
        Erratum(
            id="IOX-ERR-001",
            title="It is broken",
            capability="INC",
            reproducer=NODE,
            known_bad=("6.18.15",),
            known_good=("7.3.4",),
            links=(),
            reported="",
        ),
    )
)


def _judge(
    upstream: str,
    verdict: Verdict = Verdict.FAILED,
    said: dict[str, str] | None = None,
    *,
    node: str = NODE,
) -> Judged:
    return judge(
        node,
        verdict,
        "why",
        said,
        catalogue=CATALOGUE,
        upstream=upstream,
        package=f"{upstream}-1" if upstream else "",
    )


def test_present_where_listed_bad() -> None:
    """On a release listed bad the reproducer that finds its erratum is xfailed, and says what."""
    judged = _judge("6.18.15", said=SAID)
    assert judged.verdict is Verdict.XFAILED
    assert judged.why == "IOX-ERR-001 is present: It is broken: res=1"
    assert judged.note == judged.why


def test_present_where_listed_good() -> None:
    """On a release listed good it is a surprise, with the edit."""
    judged = _judge("7.3.4", said=SAID)
    assert judged.verdict is Verdict.SURPRISE
    assert "lists 7.3.4-1 as known_good: move '7.3.4' to known_bad" in judged.why


def test_present_where_unlisted() -> None:
    """On a release that no list names it is xfailed, and the note has the edit."""
    judged = _judge("6.18.16", said=SAID)
    assert judged.verdict is Verdict.XFAILED
    assert "no list names 6.18.16-1: add '6.18.16' to known_bad" in judged.note


def test_present_on_a_kernel_that_is_no_release() -> None:
    """On a machine's own kernel it is xfailed, and there is nothing to edit."""
    judged = _judge("", said=SAID)
    assert (Verdict.XFAILED, False) == (judged.verdict, "add" in judged.note)


def test_absent_where_listed_bad() -> None:
    """A reproducer that passes, or does not apply, on a release listed bad is a surprise."""
    passed = _judge("6.18.15", Verdict.PASSED)
    assert passed.verdict is Verdict.SURPRISE
    assert "is absent (its reproducer passed)" in passed.why
    assert "move '6.18.15' to known_good" in passed.why
    assert _judge("6.18.15", Verdict.SKIPPED).verdict is Verdict.SURPRISE


@pytest.mark.parametrize("verdict", [Verdict.PASSED, Verdict.SKIPPED])
@pytest.mark.parametrize(("upstream", "noted"), [("7.3.4", False), ("6.18.16", True), ("", False)])
def test_absent_elsewhere(upstream: str, noted: bool, verdict: Verdict) -> None:
    """Anywhere else its verdict stands; what passed and no list names is noted with the edit."""
    judged = _judge(upstream, verdict)
    assert (verdict, "why") == (judged.verdict, judged.why)
    assert ("add" in judged.note) is (noted and verdict is Verdict.PASSED)


@pytest.mark.parametrize("upstream", ["6.18.15", "7.3.4", "6.18.16", ""])
def test_other_exception_is_a_failure(upstream: str) -> None:
    """A reproducer that fails without naming its erratum has failed, whatever the lists say."""
    assert Judged(Verdict.FAILED, "why") == _judge(upstream, Verdict.FAILED)


def test_only_its_own_reproducer_may() -> None:
    """Another test that raises the id has failed, and so has one that raises an unknown id."""
    other = _judge("6.18.15", said=SAID, node="tests/smoke/test_echo.py::test_echo")
    assert other.verdict is Verdict.FAILED
    assert f"as only {NODE} may" in other.why
    unknown = _judge("6.18.15", said={"id": "IOX-ERR-999", "evidence": ""})
    assert unknown.verdict is Verdict.FAILED
    assert "unknown to errata.toml" in unknown.why


def _report(when: str, error: BaseException | None) -> pytest.TestReport:
    def body() -> None:
        if error is not None:
            raise error

    call = pytest.CallInfo.from_call(body, when)  # type: ignore[arg-type]
    report = pytest.TestReport(
        nodeid=NODE,
        location=("f", 1, "t"),
        keywords={},
        outcome="passed" if error is None else "failed",
        longrepr=None,
        when=when,  # type: ignore[arg-type]
    )
    note(report, call)
    return report


def test_only_the_call_phase_speaks() -> None:
    """What set-up or teardown raises is a failure, also beside a call that found the erratum."""
    present = ErratumPresent("IOX-ERR-001", "res=1")
    found = _report("call", present)
    assert raised([_report("setup", None), found, _report("teardown", None)]) == SAID
    assert raised([_report("setup", present)]) is None
    assert raised([found, _report("teardown", ValueError("left behind"))]) is None
    assert raised([_report("call", ValueError("no erratum"))]) is None


def test_test_cannot_forge_the_note() -> None:
    """An attribute that something else put on the report does not outlive the plugin."""
    report = _report("call", None)
    vars(report)["lab_erratum"] = dict(SAID)
    note(report, pytest.CallInfo.from_call(lambda: None, "call"))
    assert raised([report]) is None


REPRODUCER = f"""\
import os
{PRESENT}
@pytest.mark.needs("INC")
def test_it():
    raise ErratumPresent("IOX-ERR-001", "res=1")

def test_other():
    raise ErratumPresent("IOX-ERR-001", "not mine to say")

def test_fine():
    pass
"""
TOML = """\
[[erratum]]
id = "IOX-ERR-001"
title = "It is broken"
capability = "INC"
reproducer = "{node}"
known_bad = {bad}
known_good = {good}
links = []
"""


def _prepared(little: Little, *, bad: str = "[]", good: str = "[]") -> str:
    little.write("tests/kernels/errata.toml", TOML.format(node=NODE, bad=bad, good=good))
    little.tests(REPRODUCER, NODE.partition("::")[0])
    return NODE.partition("::")[0]


def test_guest_run_with_a_listed_erratum(little: Little) -> None:
    """`lab test` on a release listed bad: xfailed is green and named; another test that says the
    same is red."""
    path = _prepared(little, bad='["6.12.107"]')
    ran = little.lab(path)
    assert ran.verdicts == {"test_it": "xfailed", "test_other": "failed", "test_fine": "passed"}
    assert ran.code == 1
    ran = little.lab(path, "--deselect", f"{path}::test_other")
    assert (0, "xfailed") == (ran.code, ran.verdicts["test_it"])
    assert "note: IOX-ERR-001 is present: It is broken: res=1\n" in ran.output
    assert "1 passed, 1 deselected, 1 xfailed" in ran.output
    assert 'type="pytest.xfail"' in (ran.files / "junit.xml").read_text()


def test_guest_run_where_it_should_be_absent(little: Little) -> None:
    """`lab test` on a release listed good: the erratum is a surprise and the run is red."""
    path = _prepared(little, good='["6.12.107-1"]')
    ran = little.lab(path, "--deselect", f"{path}::test_other")
    assert (1, "surprise") == (ran.code, ran.verdicts["test_it"])
    assert "move '6.12.107' to known_bad" in ran.why("test_it")


def test_local_run(little: Little) -> None:
    """Plain pytest: the reproducer's erratum is an xfail, the other test's a failure."""
    path = _prepared(little)
    ran = little.pytest(path)
    assert ran.code == 1
    assert f"XFAIL {NODE} - IOX-ERR-001 is present" in ran.output
    assert "1 failed, 1 passed, 1 xfailed" in ran.output


NOTICED = """\
@pytest.mark.needs("INC")
def test_it():
    with open(os.environ["LAB_FAKE_KMSG"], "a") as log:
        print("[    2.0] WARNING: CPU: 0 PID: 7 at io_uring/kbuf.h:146 f+0x1/0x2", file=log)

def test_fine():
    pass
"""


def test_complaint_of_the_kernel_about_the_erratum(little: Little) -> None:
    """A splat that errata.toml gives to the erratum is its presence, and not a splat; without the
    entry it is a splat."""
    path = _prepared(little)
    little.tests(NOTICED, path)
    assert (1, "splat") == ((ran := little.lab(path)).code, ran.verdicts["test_it"])
    text = TOML.format(node=NODE, bad="[]", good="[]") + "splat = 'at io_uring/kbuf\\.h:'\n"
    little.write("tests/kernels/errata.toml", text)
    assert (0, "xfailed") == ((ran := little.lab(path)).code, ran.verdicts["test_it"])
    assert "IOX-ERR-001 is present: It is broken: [    2.000000] WARNING" in ran.why("test_it")


def test_complaint_of_a_kernel_that_has_not_the_defect(little: Little) -> None:
    """A warning that errata.toml gives to the erratum is neither its presence nor a splat."""
    path = _prepared(little)
    little.tests(NOTICED, path)
    text = TOML.format(node=NODE, bad="[]", good="[]") + "warning = 'at io_uring/kbuf\\.h:'\n"
    little.write("tests/kernels/errata.toml", text)
    assert (0, "passed") == ((ran := little.lab(path)).code, ran.verdicts["test_it"])


def test_nothing_but_an_erratum_proves_nothing(little: Little) -> None:
    """A session of nothing but an xfail is not green, locally or in a guest."""
    path = _prepared(little)
    assert little.pytest(f"{path}::test_it").code == 3
    assert little.lab(f"{path}::test_it").code == 3
