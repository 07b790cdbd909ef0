# SPDX-License-Identifier: MIT
"""Others' test suites in the lab: what is written down about them, and what is made of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from lab.project import read
from tests.others import liburing, measured, page, psutil_suite, swept
from tests.others.measured import Measured, Said

from .suite_support import REPOSITORY

pytestmark = pytest.mark.lab

ONE = Measured(
    "6.12.1",
    "1 May 2026",
    {"a.t": Said("pass"), "b.t": Said("timeout", "it did not end within 9 s and was killed")},
    {"a.t": Said("pass"), "b.t": Said("pass")},
)
WHY = page.Difference("b.t", ("6.12.1",), "timeout", "pass", "A reason.")


@pytest.mark.parametrize(
    ("verdict", "why", "word"),
    [
        ("passed", "", "pass"),
        ("skipped", "exit status 77", "skip"),
        ("failed", "it ended with status 1", "fail"),
        ("failed", "it did not end within 9 s and was killed", "timeout"),
        ("failed", "it ended with status 1: runtests.sh: timed out", "timeout"),
        ("splat", "WARNING: at x", "splat"),
        ("lost", "the guest died", "lost"),
        ("never ran", "the run ended before it", ""),
    ],
)
def test_verdict_in_the_words_of_the_page(verdict: str, why: str, word: str) -> None:
    results = {
        "kernel": {"upstream": "6.12.1"},
        "verdicts": {"liburing/a.t": {"verdict": verdict, "why": why}},
    }

    assert {"a.t": Said(word, why)} == measured.of_results(results, "today").alone


def test_each_difference_has_one_reason_and_each_reason_a_difference() -> None:
    stale = replace(WHY, program="a.t")
    other = replace(WHY, releases=("6.1.1",))

    assert [] == page.faults([ONE], [WHY])
    assert [] == page.faults([ONE], [WHY, other])
    assert ["6.12.1: b.t: timeout by itself and pass under runtests.sh has 0 reasons"] == [
        sentence.removesuffix(" in differences.toml") for sentence in page.faults([ONE], [])
    ]
    assert ["6.12.1: a.t does not differ as differences.toml says"] == page.faults(
        [ONE], [WHY, stale]
    )
    assert 1 == len(page.faults([ONE], [WHY, WHY]))


def test_program_without_a_verdict_is_said() -> None:
    lost = replace(ONE, alone={**ONE.alone, "c.t": Said("")}, runtests={})
    half = replace(ONE, runtests={"a.t": Said("pass")})

    assert ["6.12.1: c.t has no verdict"] == page.faults([lost], [])
    assert ["6.12.1: b.t has no verdict"] == page.faults([half], [])


def test_what_was_measured_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "measured.json"
    measured.save(file, [ONE, replace(ONE, release="6.13", runtests={})])

    assert [ONE, replace(ONE, release="6.13", runtests={})] == measured.load(file)


def test_named_program_that_did_not_pass_is_said() -> None:
    verdicts = {
        "liburing/a.t": {"verdict": "passed", "why": ""},
        "liburing/b.t": {"verdict": "skipped", "why": "exit status 77"},
    }

    assert ["b.t: skipped: exit status 77", "c.t: never ran: it was not in the run"] == (
        liburing.not_passed(["a.t", "b.t", "c.t"], verdicts)
    )


def test_page_of_liburing_is_what_was_measured() -> None:
    rows, known = measured.load(liburing.MEASURED), page.differences(liburing.KNOWN)

    assert rows
    assert page.render(rows, known, of=len(liburing.kernels())) == liburing.PAGE.read_text()
    assert [] == page.faults(rows, known)


def test_named_programs_are_25_that_passed() -> None:
    names = liburing.named()
    rows = [one for one in measured.load(liburing.MEASURED) if one.release.startswith("6.12.")]

    assert 25 == len(set(names)) == len(names)
    assert rows
    assert {"pass"} == {one.alone[name].word for one in rows for name in names}


def _said(verdict: str, *runs: str, why: str = "") -> dict[str, object]:
    return {"verdict": verdict, "why": why, "seconds": 1.0, "runs": list(runs)}


ONCE = {
    "kernels": [{"name": "6.1.1", "problems": []}, {"name": "6.12.1", "problems": []}],
    "missing": [],
    "changes": ["late.t", "new.t", "old.t"],
    "verdicts": {
        "late.t": {"6.1.1": _said("passed"), "6.12.1": _said("failed", why="late")},
        "new.t": {"6.1.1": _said("skipped", why="exit status 77"), "6.12.1": _said("passed")},
        "old.t": {"6.1.1": _said("failed", why="no"), "6.12.1": _said("passed")},
        "same.t": {"6.1.1": _said("passed"), "6.12.1": _said("passed")},
    },
}
AGAIN = {
    **ONCE,
    "changes": ["old.t"],
    "verdicts": {
        "late.t": {k: _said("passed", *["passed"] * 5) for k in ("6.1.1", "6.12.1")},
        "old.t": {
            "6.1.1": _said("failed", *["failed"] * 5, why="no"),
            "6.12.1": _said("passed", *["passed"] * 5),
        },
    },
}


def test_sweep_that_was_repeated() -> None:
    """What changes and fails runs again; what then ends otherwise is unsteady, and no change of the
    kernel."""
    assert ["late.t", "old.t"] == swept.suspicious(ONCE)
    found = swept.merged(ONCE, AGAIN, "1 May 2026")
    assert {
        "late.t": ["passed", "unsteady, 1 of 6 failed"],
        "new.t": ["skipped", "passed"],
        "old.t": ["failed", "passed"],
    } == found["changes"]
    assert {"late.t": ["6.12.1: late"], "new.t": [], "old.t": ["6.1.1: no"]} == found["said"]
    assert found == json.loads(swept.render_json(found))
    causes = [{"program": name, "why": "A reason."} for name in ("late.t", "old.t", "gone.t")]
    assert ["new.t has 0 causes in causes.toml", "gone.t does not change"] == swept.faults(
        found, causes
    )
    steady = {**found, "changes": {**found["changes"], "late.t": ["passed", "failed"]}}
    assert ["late.t has 0 causes in causes.toml"] == swept.faults(
        steady, [{"program": name, "why": ""} for name in ("new.t", "old.t")]
    )
    # One that measures time may be late, or not, without anybody saying why.
    assert [] == swept.faults(found, [{"program": name, "why": ""} for name in ("new.t", "old.t")])
    timed = {"program": "gone.t", "why": "", "times": True}
    assert ["new.t has 0 causes in causes.toml"] == swept.faults(found, [*causes[:2], timed])
    shown = swept.render(found, causes)
    assert "| late | passed | unsteady, 1 of 6 failed |" in shown
    assert "- old: A reason. It said `6.1.1: no`.\n" in shown
    assert "times more, on each kernel:" in shown
    assert "times more, on 6.1.1:" in swept.render({**found, "again": ["6.1.1"]}, causes)
    assert "Nothing was repeated" in swept.render({**found, "again": []}, causes)
    lost = {**ONCE, "kernels": [{"name": "6.1.1", "problems": ["a: lost: x"]}]}
    assert ["a: lost: x"] == swept.merged({**ONCE, "changes": []}, lost, "")["undecided"]


def test_page_of_the_sweep_is_what_was_measured() -> None:
    found = json.loads(swept.SWEPT.read_text())
    causes = tomllib.loads(swept.CAUSES.read_text())["cause"]
    assert swept.render_json(found) == swept.SWEPT.read_text()
    assert swept.render(found, causes) == swept.PAGE.read_text()
    assert [] == swept.faults(found, causes)
    assert found["programs"] == len(swept.quick())


def test_readme_of_liburing_shows_its_table() -> None:
    (shown,) = re.findall(
        r"```toml\n(.*?)```", (liburing.EXAMPLE / "README.md").read_text(), re.DOTALL
    )

    assert tomllib.loads((liburing.EXAMPLE / "lab.toml").read_text()) == tomllib.loads(shown)
    assert "kernels.lock" == read(liburing.EXAMPLE).lock
    lock = REPOSITORY / "tests/kernels/kernels.lock"
    assert lock.read_text() == (liburing.EXAMPLE / "kernels.lock").read_text()


HOST = {"t.py::a": "passed", "t.py::b": "skipped", "t.py::c": "passed"}
GUEST = {name: psutil_suite.End(verdict) for name, verdict in HOST.items()}
LATE = psutil_suite.Difference("t.py::c", "passed", "failed", "time", "A reason.", said="too late")


def test_difference_of_psutil_has_a_reason_and_each_reason_a_difference() -> None:
    guest = GUEST | {"t.py::c": psutil_suite.End("failed", "it was too late")}
    stale = replace(LATE, tests="t.py::a")

    assert [] == psutil_suite.faults(HOST, guest, [LATE])
    assert [] == psutil_suite.faults(HOST, guest, [LATE, replace(stale, sometimes=True)])
    assert {"time": 1} == psutil_suite.explained(HOST, guest, [LATE, stale])
    assert ["t.py::c passed on this machine and failed in the guest: it was too late"] == (
        psutil_suite.faults(HOST, guest, [])
    )
    assert ["t.py::a does not differ as differences.toml says: A reason."] == (
        psutil_suite.faults(HOST, guest, [LATE, stale])
    )
    assert ["t.py::c passed on this machine and not collected in the guest"] == (
        psutil_suite.faults(HOST, {n: end for n, end in GUEST.items() if n != "t.py::c"}, [])
    )


def test_reason_of_psutil_explains_no_other_failure_of_its_test() -> None:
    guest = GUEST | {"t.py::c": psutil_suite.End("failed", "a wrong value")}

    assert [
        "t.py::c passed on this machine and failed in the guest: a wrong value",
        "t.py::c does not differ as differences.toml says: A reason.",
    ] == psutil_suite.faults(HOST, guest, [LATE])
    assert not psutil_suite.explained(HOST, guest, [LATE])


def test_reason_of_psutil_need_not_hold_where_this_machine_lacks_the_same() -> None:
    """A test that fails on this machine, too, cannot differ; a test that is gone is said."""
    here, guest = HOST | {"t.py::c": "failed"}, GUEST | {"t.py::c": psutil_suite.End("failed")}

    assert [] == psutil_suite.faults(here, guest, [LATE])
    gone = replace(LATE, tests="t.py::gone")
    assert ["t.py::gone does not differ as differences.toml says: A reason."] == (
        psutil_suite.faults(here, guest, [gone])
    )


def test_reasons_of_psutil_are_told_once_and_of_a_known_kind() -> None:
    known = psutil_suite.differences(psutil_suite.KNOWN)
    words = {"passed", "failed", "skipped", "splat", "lost"}

    assert known
    assert len(known) == len({(one.tests, one.host, one.guest, one.said) for one in known})
    for one in known:
        assert one.because in psutil_suite.BECAUSE
        assert one.host in words
        assert one.guest in words
        assert one.host != one.guest
        assert one.sometimes is (one.because in ("time", "host"))
        assert one.said or one.guest == "passed"
        assert len(one.why.split()) > 4


def test_readme_of_psutil_shows_its_table() -> None:
    text = (psutil_suite.EXAMPLE / "README.md").read_text()
    (shown,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)

    assert tomllib.loads((psutil_suite.EXAMPLE / "lab.toml").read_text()) == tomllib.loads(shown)


@pytest.mark.parametrize(
    ("said", "status", "expected"),
    [
        ("Running test x.t   1 sec\nAll tests passed", 0, 0),
        ("Running test x.t   Skipped\nAll tests passed", 0, 77),
        ("Running test x.t   Test x.t timed out (may not be a failure)", 0, 1),
        ("Running test x.t   Test x.t failed with ret 2", 1, 1),
    ],
)
def test_what_runtests_says_becomes_an_exit_status(
    tmp_path: Path, said: str, status: int, expected: int
) -> None:
    for name in ("programs", "runtests", "tools"):
        (tmp_path / name).mkdir()
    (tmp_path / "tools/runtests.sh").write_text(f"cat <<'END'\n{said}\nEND\nexit {status}\n")
    program = tmp_path / "runtests/x.t"
    program.write_text((liburing.EXAMPLE / "runtests-one").read_text())
    program.chmod(0o755)
    done = subprocess.run([program], env=os.environ, capture_output=True, text=True, check=False)

    assert expected == done.returncode, done.stdout + done.stderr
    assert said in done.stdout
