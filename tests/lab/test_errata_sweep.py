# SPDX-License-Identifier: MIT
"""A sweep over releases: guests that die, processes that hang, and what goes on afterwards."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.arch import Death
from lab.errata.measure import measure
from lab.errata.state import State
from lab.errata.sweep import Job, in_turn, sweep
from lab.errors import GuestLost, KernelUnavailable, LabError
from lab.facts.errata import Finding, Seen
from lab.kernels import Kernel
from lab.remote.identity import PROOF
from lab.remote.losses import RunOver
from lab.rules import contract, dmesg
from lab.rules.errata import Catalogue
from tests.lab.errata_support import (
    CATALOGUE,
    COMPLAINT,
    NODES,
    PROJECT,
    SENT,
    FakeLab,
    Script,
    fake_erratum,
    fake_kernel,
)

pytestmark = pytest.mark.lab


def _measure(script: Script, tmp_path: Path) -> dict[str, Seen | None]:
    found = measure(FakeLab(fake_kernel("6.12.1"), script), SENT, NODES, tmp_path / "results")
    assert list(found.findings) == NODES
    return {name[-1]: finding.seen for name, finding in found.findings.items()}


def test_each_reproducer_has_its_finding(tmp_path: Path) -> None:
    """One guest and one process suffice where all goes well."""
    script = Script({NODES[0]: "present", NODES[1]: "n/a", NODES[2]: "failed"})
    found = _measure(script, tmp_path)
    assert {"a": Seen.PRESENT, "b": Seen.NOT_APPLICABLE, "c": Seen.FAILED} == found
    assert script.boots == 1


def test_reproducer_that_may_not_is_not_decided(tmp_path: Path) -> None:
    """What a kernel lacks that a reproducer takes is no fault of it, and its reason is kept."""
    script = Script({NODES[1]: " not tried: there is no userfaultfd(2)"})
    found = measure(FakeLab(fake_kernel("6.12.1"), script), SENT, NODES, tmp_path / "results")
    assert Finding(None, "not tried: there is no userfaultfd(2)") == found.findings[NODES[1]]
    assert Seen.ABSENT is found.findings[NODES[2]].seen
    assert script.boots == 1


@pytest.mark.parametrize("how", ["dies", "hangs", "leaves"])
def test_process_that_ends_costs_one_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A reproducer that takes its process down is not decided; the one after it is, in the same
    guest."""
    monkeypatch.setattr("lab.errata.measure._BASE_S", 0.5)
    monkeypatch.setattr("lab.errata.measure._PER_SLOWDOWN_S", 0.0)
    script = Script({NODES[1]: how, NODES[2]: "present"})
    assert {"a": Seen.ABSENT, "b": None, "c": Seen.PRESENT} == _measure(script, tmp_path)
    assert script.boots == 1


@pytest.mark.parametrize("how", ["mistakes", "improvises", "swallows"])
def test_process_that_lies_decides_nothing(tmp_path: Path, how: str) -> None:
    """A process that cannot be believed is a problem of the whole release."""
    script = Script({NODES[1]: how})
    with pytest.raises(RunOver, match="cannot be believed"):
        _measure(script, tmp_path)


def test_panic_costs_one_finding(tmp_path: Path) -> None:
    """A reproducer that takes the guest down is not decided; the rest runs in a second guest."""
    script = Script({NODES[0]: "panics"})
    assert {"a": None, "b": Seen.ABSENT, "c": Seen.ABSENT} == _measure(script, tmp_path)
    assert script.boots == 2
    assert "panicked" in (tmp_path / "results/lost.txt").read_text()


def test_two_panics_end_it(tmp_path: Path) -> None:
    """After the second lost guest what is left never ran, and nothing is invented for it."""
    script = Script({NODES[0]: "panics", NODES[1]: "panics"})
    assert {"a": None, "b": None, "c": None} == _measure(script, tmp_path)
    assert script.boots == 2


def test_no_guest_is_an_error(tmp_path: Path) -> None:
    """Where no guest comes up there are no findings at all."""
    script = Script(no_guest=GuestLost("the agent said nothing within 120 s"))
    with pytest.raises(GuestLost):
        _measure(script, tmp_path)
    assert script.boots == 2


def test_complaint_is_its_own_reproducers(tmp_path: Path) -> None:
    """A splat in the kernel log belongs to the reproducer that ran, also when others came after it
    and when its process died."""
    script = Script({NODES[0]: "present", NODES[1]: "splats", NODES[2]: "dies"})
    found = measure(FakeLab(fake_kernel("6.12.1"), script), SENT, NODES, tmp_path / "results")
    said = [[line.partition("] ")[2] for line in f.splats] for f in found.findings.values()]
    assert [[], [COMPLAINT], []] == said
    assert [] == found.complaints


def test_complaint_of_the_boot_is_a_fault_of_the_release(tmp_path: Path) -> None:
    """What the kernel complained of as it came up, or as it was probed, is no reproducer's, and not
    forgotten: neither now nor by a sweep that has nothing left to measure."""
    script = Script(probe_says=[COMPLAINT.replace("7 at", "8 at")])
    script.say(COMPLAINT)
    job, path = _job(tmp_path, "6.12.1"), tmp_path / "measured.json"
    for _ in range(2):
        swept = sweep(job, FakeShelf(v6_12_1=script), _state(path), lambda _: None)
        assert [
            f"6.12.1-1 complained while no reproducer ran: [    9.000000] {line}"
            for line in (COMPLAINT, COMPLAINT.replace("7 at", "8 at"))
        ] == swept.faults
    assert script.boots == 1


def test_what_the_repository_allows_is_no_complaint(tmp_path: Path) -> None:
    """An allowance of the repository's own holds while the guest boots, while a reproducer runs and
    on the console of a guest that died."""
    allowed = dmesg.read_allowances(
        '[[allow]]\npattern = "at io_uring/kbuf|syncing: fake"\nkernels = "every"\n'
        'reason = "a kernel of the tests"\n'
    )
    script = Script({NODES[0]: "splats", NODES[1]: "dies", NODES[2]: "splats"})
    script.say(COMPLAINT)
    lab = FakeLab(fake_kernel("6.12.1"), script)
    found = measure(lab, replace(SENT, allowed=allowed), NODES, tmp_path / "results")
    assert [] == found.complaints
    assert [(), (), ()] == [finding.splats for finding in found.findings.values()]
    assert [Seen.ABSENT, None, Seen.ABSENT] == [f.seen for f in found.findings.values()]
    script = Script({NODES[0]: "splats", NODES[1]: "panics"})
    lab = FakeLab(fake_kernel("6.12.1"), script)
    found = measure(lab, replace(SENT, allowed=allowed), NODES, tmp_path / "lost")
    assert [(), (), ()] == [finding.splats for finding in found.findings.values()]


@pytest.mark.parametrize("name", [*PROOF, ""])
def test_guest_that_is_not_the_one_it_is_taken_for(tmp_path: Path, name: str) -> None:
    """Nothing counts that a process found which runs another tree, or runs elsewhere, or does not
    say who it is."""
    script = Script({NODES[0]: "present"}, lie={name: "other"} if name else None)
    sentence = f"proves the wrong {name}: 'other'" if name else "it said begun where hello was due"
    with pytest.raises(RunOver, match=sentence):
        _measure(script, tmp_path)


def test_set_up_command_runs_in_each_guest(tmp_path: Path) -> None:
    """The table's set-up command runs once in each guest, before the reproducers; where it fails,
    nothing was measured."""
    sent = replace(SENT, setup=("make", "ready"))
    script = Script({NODES[0]: "panics"})
    measure(FakeLab(fake_kernel("6.12.1"), script), sent, NODES, tmp_path / "results")
    assert [("make", "ready")] * 2 == script.set_up
    broken = Script(set_up_status=2)
    with pytest.raises(RunOver, match="set-up command 'make ready' ended with status 2") as caught:
        measure(FakeLab(fake_kernel("6.12.1"), broken), sent, NODES, tmp_path / "broken")
    assert caught.value.tail == "no rule"
    assert [] == broken.asked


def test_complaint_of_the_defect_is_its_presence(tmp_path: Path) -> None:
    """Where the kernel notices an erratum itself and says so, the erratum is present; any other
    complaint is a fault of its own."""
    noticed = replace(fake_erratum("a"), splat=re.compile(r"at io_uring/kbuf\.[ch]:"))
    catalogue = Catalogue((noticed, fake_erratum("b"), fake_erratum("c")))
    script = Script({NODES[0]: "splats", NODES[1]: "splats"})
    swept = sweep(
        _job(tmp_path, "6.12.1", catalogue=catalogue),
        FakeShelf(v6_12_1=script),
        _state(tmp_path / "measured.json"),
        lambda _: None,
    )
    (row,) = swept.measured
    assert [Seen.PRESENT, Seen.ABSENT, Seen.ABSENT] == [f.seen for f in row.findings.values()]
    assert [f"6.12.1-1 complained of {NODES[1]}: [    9.000000] {COMPLAINT}"] == swept.faults


def test_warning_of_a_kernel_without_the_defect_is_no_fault(tmp_path: Path) -> None:
    """What it says of what the reproducer does leaves the erratum absent."""
    warned = replace(fake_erratum("a"), warning=re.compile(r"at io_uring/kbuf\.[ch]:"))
    swept = sweep(
        _job(tmp_path, "6.12.1", catalogue=Catalogue((warned,))),
        FakeShelf(v6_12_1=Script({NODES[0]: "splats"})),
        _state(tmp_path / "measured.json"),
        lambda _: None,
    )
    (row,) = swept.measured
    assert [Seen.ABSENT] == [finding.seen for finding in row.findings.values()]
    assert [] == swept.faults


def test_panic_is_a_complaint_about_its_reproducer(tmp_path: Path) -> None:
    """A kernel that dies of a reproducer has complained of it, also where nothing was decided;
    where its emulator is known to have killed it, it has not."""
    for deaths, splats in (((), 1), ((Death(re.compile("panic"), (0, 0, 0), 1, "it"),), 0)):
        script = Script({NODES[0]: "panics"}, deaths=deaths)
        found = measure(FakeLab(fake_kernel("6.12.1"), script), SENT, NODES, tmp_path / f"{splats}")
        findings = found.findings
        assert findings[NODES[0]].seen is None
        assert splats == len(findings[NODES[0]].splats)
        assert () == findings[NODES[1]].splats
    script = Script({NODES[0]: "splats", NODES[1]: "panics"})
    found = measure(FakeLab(fake_kernel("6.12.1"), script), SENT, NODES, tmp_path / "before")
    assert [1, 1, 0] == [len(finding.splats) for finding in found.findings.values()]
    swept = sweep(
        _job(tmp_path, "6.12.1"),
        FakeShelf(v6_12_1=Script({NODES[0]: "panics"})),
        _state(tmp_path / "measured.json"),
        lambda _: None,
    )
    assert any("complained of" in fault and "Kernel panic" in fault for fault in swept.faults)


# -- the sweep ---------------------------------------------------------------------------------


def _state(path: Path, **others: str) -> State:
    """The record of measurements by the program "one" of each erratum but `others`."""
    letters = {"a": "one", "b": "one", "c": "one"} | others
    return State(path, {fake_erratum(letter).id: program for letter, program in letters.items()})


class FakeShelf:
    """Guests by upstream version."""

    def __init__(self, **scripts: Script) -> None:
        self.scripts = {name.replace("_", ".")[1:]: script for name, script in scripts.items()}

    def guests(self, kernel: Kernel) -> Any:
        return FakeLab(kernel, self.scripts.setdefault(kernel.upstream, Script()))


def _job(tmp_path: Path, *upstreams: str, catalogue: Catalogue = CATALOGUE, **more: Any) -> Job:
    return Job(
        catalogue=catalogue,
        contract=contract.of(PROJECT),
        sent=SENT,
        kernels=[fake_kernel(upstream) for upstream in upstreams],
        results=tmp_path / "results",
        **more,
    )


def test_sweep_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    """What was decided is not measured again, what was not is; and so is all when it is asked for,
    and what a reproducer found that is another one now."""
    path = tmp_path / "state/measured.json"
    shelf = FakeShelf(v6_12_2=Script({NODES[0]: "panics"}))
    said: list[str] = []
    job = _job(tmp_path, "6.12.1", "6.12.2")
    sweep(job, shelf, _state(path), said.append)
    assert {"6.12.1": 1, "6.12.2": 2} == {k: s.boots for k, s in shelf.scripts.items()}
    asked = {"6.12.1": [*NODES], "6.12.2": [*NODES]}
    assert asked == {k: s.asked for k, s in shelf.scripts.items()}

    shelf.scripts["6.12.2"].does.clear()
    swept = sweep(job, shelf, _state(path), said.append)
    asked["6.12.2"].append(NODES[0])
    assert asked == {k: s.asked for k, s in shelf.scripts.items()}
    assert [] == swept.problems
    assert [r.upstream for r in swept.measured] == ["6.12.1", "6.12.2"]
    assert [["IOX-ERR-001", "IOX-ERR-002", "IOX-ERR-003"]] * 2 == [
        list(r.findings) for r in swept.measured
    ]
    assert "known: good" in said[-2]
    assert "s for 1 of 3: good" in said[-1]

    sweep(_job(tmp_path, "6.12.1", fresh=True), shelf, _state(path), said.append)
    asked["6.12.1"] += NODES
    other = _state(path, b="another")
    assert not other.whole(fake_kernel("6.12.1"))
    assert other.begun(fake_kernel("6.12.1"))
    assert not other.begun(fake_kernel("6.12.3"))
    sweep(_job(tmp_path, "6.12.1"), shelf, other, said.append)
    asked["6.12.1"].append(NODES[1])
    assert asked == {k: s.asked for k, s in shelf.scripts.items()}
    assert other.whole(fake_kernel("6.12.1"))
    assert not other.begun(fake_kernel("6.12.1"))


def test_next_kernel_is_fetched_meanwhile(tmp_path: Path) -> None:
    """While one is asked; what is known is not fetched, and what cannot be is told in its turn."""
    path = tmp_path / "measured.json"
    shelf = FakeShelf(v6_12_2=Script(unprepared=LabError("there is no archive")))
    sweep(_job(tmp_path, "6.12.3"), shelf, _state(path), lambda _: None)
    shelf.scripts["6.12.3"].prepared.clear()
    last = shelf.scripts["6.12.4"] = Script()
    shelf.scripts["6.12.2"].boots_after = last
    job = _job(tmp_path, "6.12.1", "6.12.2", "6.12.3", "6.12.4")
    swept = sweep(job, shelf, _state(path), lambda _: None)
    assert ["6.12.1", "6.12.2", "6.12.3", "6.12.4"] == [row.upstream for row in swept.measured]
    assert not shelf.scripts["6.12.1"].prepared.is_set(), "it is the first"
    assert not shelf.scripts["6.12.3"].prepared.is_set(), "it is known"


def test_release_that_cannot_be_had_costs_itself_only(tmp_path: Path) -> None:
    """It is named as a problem, and the next one is measured."""
    gone = Script(no_guest=KernelUnavailable("kernel 6.12.1 cannot be had"))
    swept = sweep(
        _job(tmp_path, "6.12.1", "6.12.2"),
        FakeShelf(v6_12_1=gone),
        _state(tmp_path / "measured.json"),
        lambda _: None,
    )
    assert [r.upstream for r in swept.measured] == ["6.12.2"]
    assert ["6.12.1-1: kernel 6.12.1 cannot be had"] == swept.problems


@pytest.mark.parametrize(
    ("upstream", "needs", "fault"),
    [
        ("6.1.170", "INC", ""),
        ("6.12.1", "INC, BUNDLE", "tests/kernels/expected.toml promises INC"),
        ("6.12.1", "SOMETHING", "tests/kernels/expected.toml says nothing about SOMETHING"),
    ],
)
def test_what_was_not_tried_must_be_denied(
    tmp_path: Path, upstream: str, needs: str, fault: str
) -> None:
    """A reproducer that did not run for lack of what the contract promises is a fault: its erratum
    was not looked for."""
    name = f"v{upstream}".replace(".", "_")
    swept = sweep(
        _job(tmp_path, upstream, catalogue=Catalogue((fake_erratum("a"),))),
        FakeShelf(**{name: Script({NODES[0]: f"n/a needs {needs}: not observed"})}),
        _state(tmp_path / "measured.json"),
        lambda _: None,
    )
    said = f"IOX-ERR-001 was not tried on {upstream}-1: needs {needs}: not observed, and {fault}"
    assert ([said] if fault else []) == swept.faults


def test_what_contradicts_or_fails_is_a_fault(tmp_path: Path) -> None:
    """A list that says the opposite, and a reproducer that ends in neither way, are faults; what
    no list names is none, what is not decided is a problem."""
    catalogue = Catalogue(
        (fake_erratum("a", good=("6.12.1",)), fake_erratum("b", bad=("6.12.1",)), fake_erratum("c"))
    )
    script = Script({NODES[0]: "present", NODES[2]: "failed"})
    shelf = FakeShelf(v6_12_1=script, v6_12_2=Script({NODES[0]: "present", NODES[1]: "hangs"}))
    job = _job(tmp_path, "6.12.1", "6.12.2", catalogue=catalogue)
    swept = sweep(job, shelf, _state(tmp_path / "measured.json"), lambda _: None)
    assert [
        f"{NODES[2]} failed on 6.12.1-1: ",
        "surprise: IOX-ERR-001 is present on 6.12.1-1, which known_good names",
        "surprise: IOX-ERR-002 is absent on 6.12.1-1, which known_bad names",
    ] == swept.faults
    assert len(swept.problems) == 1
    assert swept.problems[0].startswith("IOX-ERR-002 is not decided on 6.12.2-1: ")


def test_broken_record_is_refused(tmp_path: Path) -> None:
    """A file that is no record is named, with the way out."""
    path = tmp_path / "measured.json"
    path.write_text("{}")
    with pytest.raises(LabError, match="no record of a sweep"):
        _state(path)


def test_newest_of_each_series_is_measured_first() -> None:
    """A sweep that is stopped has something of every series, and of two packagings the newer."""
    names = ["6.1.9", "6.1.10", "6.12.1", "6.12.3", "6.12.20", "7.0.1"]
    kernels = [*map(fake_kernel, names), fake_kernel("6.12.20", "2")]
    assert ["7.0.1-1", "6.12.20-2", "6.1.10-1", "6.12.20-1", "6.12.3-1", "6.12.1-1", "6.1.9-1"] == [
        kernel.package for kernel in in_turn(kernels)
    ]
