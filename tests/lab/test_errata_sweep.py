# SPDX-License-Identifier: MIT
"""A sweep over releases: guests that die, processes that hang, what is kept and what is written."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lab import project
from lab.arch import Death
from lab.errata import lists, table
from lab.errata.measure import Sent, measure
from lab.errata.program import programs
from lab.errata.reproduce import Said, mark_of
from lab.errata.state import State
from lab.errata.sweep import Job, in_turn, sweep
from lab.errors import GuestLost, KernelUnavailable, LabError
from lab.facts.errata import Finding, Measured, Seen
from lab.kernels import Kernel
from lab.project import Errata
from lab.remote.identity import PROOF
from lab.remote.losses import RunOver
from lab.remote.wire import Numberer
from lab.rules import contract, dmesg
from lab.rules.errata import Catalogue, Erratum
from lab.vm import Completed, Control, Event, Exited, Output, Stream
from lab.vm.kmsg import Piece, Record

pytestmark = pytest.mark.lab

REPRODUCERS = "tests/kernel_gated/errata"
PROJECT = project.read(Path(__file__).parents[2])
NODES = [f"{REPRODUCERS}/test_errata_it.py::test_{letter}" for letter in "abc"]
COMPLAINT = "WARNING: CPU: 0 PID: 7 at io_uring/kbuf.h:146 io_recv_finish+0x37c/0x4a0"
HASHES = {"tree_sha256": "t", "extension_sha256": "e", "bytecode_sha256": "b"}
SENT = Sent(b"tar", "t", "e", "b", environment={"PYTHONPATH": "here"})
PRESENT, ABSENT = Finding(Seen.PRESENT, "seen"), Finding(Seen.ABSENT, "")


def _kernel(upstream: str, revision: str = "1") -> Kernel:
    return Kernel(
        series=".".join(upstream.split(".")[:2]),
        upstream=upstream,
        package=f"{upstream}-{revision}",
        release=f"{upstream}+fake{revision}",
        source="fake",
        locked=False,
        verified_by="nobody",
    )


@dataclass
class Script:
    """What fake guests of one kernel do: by reproducer, a word that `lab.errata.reproduce` would
    say, or "dies", "hangs", "panics" (the guest is lost), "leaves" (ends with status 0), "mistakes"
    (has found something of another one), "swallows" (does not say what it found)."""

    does: dict[str, str] = field(default_factory=dict)
    boots: int = 0
    asked: list[str] = field(default_factory=list)
    no_guest: Exception | None = None
    log: list[Record] = field(default_factory=list)
    heard: int = 0
    deaths: Sequence[Death] = ()
    lie: dict[str, str] | None = field(default_factory=dict)
    """What its process says otherwise of itself than is so; None if it does not say who it is."""
    probe_says: Sequence[str] = ()
    """What the kernel says before the first reproducer's mark."""
    set_up: list[tuple[str, ...]] = field(default_factory=list)
    """The set-up commands that ran."""
    set_up_status: int = 0
    prepared: threading.Event = field(default_factory=threading.Event)
    unprepared: LabError | None = None
    boots_after: Script | None = None
    """Whose kernel has to be prepared before a guest of this one comes up."""

    def say(self, text: str, *, of_kernel: bool = True) -> None:
        """Have it in the kernel's log."""
        priority = 4 if of_kernel else 8 + 5
        self.log.append(Record(len(self.log), priority, 9_000_000, False, text))


class FakeProcess:
    """Says what its script has; cuts its lines in two, as a pipe may."""

    def __init__(self, guest: FakeGuest, names: Sequence[str]) -> None:
        self._events: list[Event | Exception] = []
        self._killed = False
        self._out = Numberer()
        if guest.script.lie is not None:
            self._put(Said.HELLO, **{**guest.proof, **guest.script.lie})
        for line in guest.script.probe_says:
            guest.script.say(line)
        for name in names:
            self._put(Said.BEGUN, id=name)
            guest.script.asked.append(name)
            guest.script.say(mark_of(name), of_kernel=False)
            word = guest.script.does.get(name, "absent")
            if word == "panics":
                guest.script.say("Kernel panic - not syncing: fake")
                self._events.append(GuestLost("the guest's kernel panicked"))
                return
            if word == "hangs":
                return
            if word in ("dies", "leaves"):
                self._events.append(Output(Stream.STDERR, b"Segmentation fault\n"))
                self._events.append(Exited(-11 if word == "dies" else 0))
                return
            if word == "swallows":
                continue
            if word == "splats":
                guest.script.say(COMPLAINT)
                word = "absent"
            word, _, why = word.partition(" ")
            found = name
            if word == "mistakes":
                found, word = NODES[2], "absent"
            self._put(
                Said.FOUND, id=found, seen=word, evidence="seen" if word == "present" else why
            )
        self._put(Said.DONE, found=len(names))
        self._events.append(Exited(0))

    def _put(self, kind: Said, **fields: object) -> None:
        # What a reproducer prints is not taken for what it found.
        noise = json.dumps({"type": "found", "id": NODES[0], "seen": "failed"}).encode()
        message = self._out.message(kind, **fields)
        self._events += [Output(Stream.STDOUT, b"not JSON\n" + noise + b"\n"), Control(message)]

    def receive(self, timeout_s: float) -> Event:
        if not self._events:
            if self._killed:
                return Exited(-9)
            time.sleep(min(timeout_s, 0.05))
            raise TimeoutError("nothing was said")
        event = self._events.pop(0)
        if isinstance(event, Exception):
            raise event
        return event

    def kill(self, signal: int = 9) -> None:  # noqa: ARG002
        self._killed = True


class FakeGuest:
    """A guest that runs nothing."""

    slowdown = 1.0

    def __init__(self, kernel: Kernel, script: Script) -> None:
        self.kernel, self.script, self.uname = kernel, script, kernel.release
        self.pushed = b""
        self.deaths = script.deaths
        self.nonce = "1234"
        self.proof = {"nonce": "1234", "release": kernel.release, **HASHES}

    def push_tree(self, tar: bytes, directory: str) -> None:  # noqa: ARG002
        self.pushed = tar

    def run(self, argv: Sequence[str], *, env: dict[str, str], **_: Any) -> Completed:
        assert self.pushed == b"tar", "nothing was pushed before it was run"
        assert env["PYTHONPATH"] == "here"
        self.script.set_up.append(tuple(argv))
        return Completed(self.script.set_up_status, b"", b"no rule")

    def console_log(self) -> bytes:
        return b"".join(record.line.encode() + b"\r\n" for record in self.script.log)

    def read_kernel_log(self) -> Piece:
        begun, self.script.heard = self.script.heard, len(self.script.log)
        return Piece(self.script.log[begun:])

    def spawn(self, argv: Sequence[str], *, env: dict[str, str], **_: Any) -> FakeProcess:
        assert env["LAB_KMSG"] == "/dev/kmsg"
        assert argv[3:5] == ("-m", "lab.errata.reproduce")
        assert self.pushed == b"tar", "nothing was pushed before it was run"
        assert env["PYTHONPATH"] == "here"
        return FakeProcess(self, argv[5:])


class FakeLab:
    """Gives guests of one kernel."""

    def __init__(self, kernel: Kernel, script: Script) -> None:
        self.kernel, self.script = kernel, script

    def prepare(self, results: Path) -> None:
        assert results.is_dir()
        self.script.prepared.set()
        if self.script.unprepared is not None:
            raise self.script.unprepared

    @contextmanager
    def boot(self, results: Path) -> Iterator[Any]:
        assert results.is_dir()
        if self.script.boots_after is not None:
            assert self.script.boots_after.prepared.wait(10), "the next one was not prepared"
        self.script.boots += 1
        if self.script.no_guest is not None:
            raise self.script.no_guest
        yield FakeGuest(self.kernel, self.script)


def _measure(script: Script, tmp_path: Path) -> dict[str, Seen | None]:
    found = measure(FakeLab(_kernel("6.12.1"), script), SENT, NODES, tmp_path / "results")
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
    found = measure(FakeLab(_kernel("6.12.1"), script), SENT, NODES, tmp_path / "results")
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
    found = measure(FakeLab(_kernel("6.12.1"), script), SENT, NODES, tmp_path / "results")
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
    lab = FakeLab(_kernel("6.12.1"), script)
    found = measure(lab, replace(SENT, allowed=allowed), NODES, tmp_path / "results")
    assert [] == found.complaints
    assert [(), (), ()] == [finding.splats for finding in found.findings.values()]
    assert [Seen.ABSENT, None, Seen.ABSENT] == [f.seen for f in found.findings.values()]
    script = Script({NODES[0]: "splats", NODES[1]: "panics"})
    lab = FakeLab(_kernel("6.12.1"), script)
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
    measure(FakeLab(_kernel("6.12.1"), script), sent, NODES, tmp_path / "results")
    assert [("make", "ready")] * 2 == script.set_up
    broken = Script(set_up_status=2)
    with pytest.raises(RunOver, match="set-up command 'make ready' ended with status 2") as caught:
        measure(FakeLab(_kernel("6.12.1"), broken), sent, NODES, tmp_path / "broken")
    assert caught.value.tail == "no rule"
    assert [] == broken.asked


def test_complaint_of_the_defect_is_its_presence(tmp_path: Path) -> None:
    """Where the kernel notices an erratum itself and says so, the erratum is present; any other
    complaint is a fault of its own."""
    noticed = replace(_erratum("a"), splat=re.compile(r"at io_uring/kbuf\.[ch]:"))
    catalogue = Catalogue((noticed, _erratum("b"), _erratum("c")))
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


def test_panic_is_a_complaint_about_its_reproducer(tmp_path: Path) -> None:
    """A kernel that dies of a reproducer has complained of it, also where nothing was decided;
    where its emulator is known to have killed it, it has not."""
    for deaths, splats in (((), 1), ((Death(re.compile("panic"), (0, 0, 0), 1, "it"),), 0)):
        script = Script({NODES[0]: "panics"}, deaths=deaths)
        found = measure(FakeLab(_kernel("6.12.1"), script), SENT, NODES, tmp_path / f"{splats}")
        findings = found.findings
        assert findings[NODES[0]].seen is None
        assert splats == len(findings[NODES[0]].splats)
        assert () == findings[NODES[1]].splats
    script = Script({NODES[0]: "splats", NODES[1]: "panics"})
    found = measure(FakeLab(_kernel("6.12.1"), script), SENT, NODES, tmp_path / "before")
    assert [1, 1, 0] == [len(finding.splats) for finding in found.findings.values()]
    swept = sweep(
        _job(tmp_path, "6.12.1"),
        FakeShelf(v6_12_1=Script({NODES[0]: "panics"})),
        _state(tmp_path / "measured.json"),
        lambda _: None,
    )
    assert any("complained of" in fault and "Kernel panic" in fault for fault in swept.faults)


# -- the sweep ---------------------------------------------------------------------------------


def _erratum(letter: str, *, bad: tuple[str, ...] = (), good: tuple[str, ...] = ()) -> Erratum:
    number = "abc".index(letter) + 1
    return Erratum(
        id=f"IOX-ERR-00{number}",
        title=f"It is broken, {letter}",
        capability="INC",
        reproducer=NODES[number - 1],
        known_bad=bad,
        known_good=good,
        links=("https://example.org/1",),
        reported="",
    )


CATALOGUE = Catalogue((_erratum("a"), _erratum("b"), _erratum("c")))


def _state(path: Path, **others: str) -> State:
    """The record of measurements by the program "one" of each erratum but `others`."""
    letters = {"a": "one", "b": "one", "c": "one"} | others
    return State(path, {_erratum(letter).id: program for letter, program in letters.items()})


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
        kernels=[_kernel(upstream) for upstream in upstreams],
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
    assert not other.whole(_kernel("6.12.1"))
    assert other.begun(_kernel("6.12.1"))
    assert not other.begun(_kernel("6.12.3"))
    sweep(_job(tmp_path, "6.12.1"), shelf, other, said.append)
    asked["6.12.1"].append(NODES[1])
    assert asked == {k: s.asked for k, s in shelf.scripts.items()}
    assert other.whole(_kernel("6.12.1"))
    assert not other.begun(_kernel("6.12.1"))


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
        _job(tmp_path, upstream, catalogue=Catalogue((_erratum("a"),))),
        FakeShelf(**{name: Script({NODES[0]: f"n/a needs {needs}: not observed"})}),
        _state(tmp_path / "measured.json"),
        lambda _: None,
    )
    said = f"IOX-ERR-001 was not tried on {upstream}-1: needs {needs}: not observed, and {fault}"
    assert ([said] if fault else []) == swept.faults


def test_list_that_names_what_was_not_tried_contradicts() -> None:
    """Bad or good, a release that a list names had what the reproducer needs."""
    row = _row("6.12.9", ABSENT)
    assert [] == [d for d in lists.differences(CATALOGUE, [row]) if d.erratum == "IOX-ERR-003"]
    for listed in ({"bad": ("6.12.9",)}, {"good": ("6.12.9",)}):
        catalogue = Catalogue((_erratum("a"), _erratum("b"), _erratum("c", **listed)))
        (first, *_) = lists.differences(catalogue, [row])
        assert ("IOX-ERR-003", True) == (first.erratum, first.surprise)


def test_what_contradicts_or_fails_is_a_fault(tmp_path: Path) -> None:
    """A list that says the opposite, and a reproducer that ends in neither way, are faults; what
    no list names is none, what is not decided is a problem."""
    catalogue = Catalogue(
        (_erratum("a", good=("6.12.1",)), _erratum("b", bad=("6.12.1",)), _erratum("c"))
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


ERRATA = Errata(
    "errata.toml",
    REPRODUCERS,
    followed=("tests/kernel_gated",),
    sources=("ioxide/_probe/rawring.py", "ioxide/_ring/probe.c", "ioxide/_ring/probe.h"),
)


def _programs(root: Path) -> list[str]:
    nodes = {str(n): f"{REPRODUCERS}/test_errata_{n}.py::test_it" for n in (1, 2)}
    return list(programs(root, ERRATA, nodes).values())


def test_measurement_depends_on_its_own_program(tmp_path: Path) -> None:
    """What is measured again is what an edit changes: code of a reproducer, of a helper it imports,
    of the ring below all; not another reproducer, nor a comment, nor what all tests share."""
    helper = f"{REPRODUCERS}/provided.py"
    sources = {
        f"{REPRODUCERS}/test_errata_1.py": (
            "from __future__ import annotations\n"
            "from tests.kernel_gated.errata import provided\n"
            "from tests.support import TIMEOUT\n"
            "def test_it() -> None:\n    assert provided.SIZE == 1\n"
        ),
        f"{REPRODUCERS}/test_errata_2.py": "import os\ndef test_it() -> None: os.getpid()\n",
        helper: "SIZE = 1\n",
        f"{REPRODUCERS}/__init__.py": "",
        "tests/support.py": "TIMEOUT = 60\n",
        "ioxide/_probe/rawring.py": "from ioxide import reactor\n",
        "ioxide/_ring/probe.c": 'int f(void) { return puts("//"); }\n',
        "ioxide/_ring/probe.h": "int f(void);\n",
    }
    for name, text in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    first = _programs(tmp_path)
    assert first[0] != first[1]

    def changed(name: str, text: str) -> list[bool]:
        (tmp_path / name).write_text(text)
        now = _programs(tmp_path)
        (tmp_path / name).write_text(sources[name])
        return [one != other for one, other in zip(first, now, strict=True)]

    own, in_c = f"{REPRODUCERS}/test_errata_1.py", "ioxide/_ring/probe.c"
    documented = sources[own].replace("None:", 'None:\n    """A promise."""  # why')
    assert [False, False] == changed(own, documented)
    assert [True, False] == changed(own, sources[own].replace("== 1", "== 2"))
    assert [False, False] == changed(helper, f"# how many\n\n{sources[helper]}")
    assert [True, False] == changed(helper, "SIZE = 2\n")
    assert [False, False] == changed("tests/support.py", "TIMEOUT = 61\n")
    assert [False, False] == changed(in_c, f"/* what\n * for */\n{sources[in_c]}// end\n")
    assert [True, True] == changed(in_c, sources[in_c].replace("//", "/ /"))


@pytest.mark.parametrize(
    ("reproducer", "sentence"),
    [
        ("async def test_it() -> None: pass", "has no function test_it"),
        ("def test_it(tmp_path): pass", "test_it wants arguments"),
        ("def test_it():\n    yield", "test_it yields"),
        ("", "has no function test_it"),
    ],
)
def test_reproducer_that_would_not_run_is_refused(
    tmp_path: Path, reproducer: str, sentence: str
) -> None:
    """What a call does not run would find every erratum absent."""
    module = f"{REPRODUCERS}/test_errata_it.py"
    (tmp_path / module).parent.mkdir(parents=True)
    (tmp_path / module).write_text(reproducer)
    with pytest.raises(LabError, match=sentence):
        programs(tmp_path, ERRATA, {"IOX-ERR-001": f"{module}::test_it"})


# -- the page and the lists --------------------------------------------------------------------


def _row(upstream: str, a: Finding, b: Finding = ABSENT, revision: str = "1") -> Measured:
    kernel = _kernel(upstream, revision)
    findings = {
        "IOX-ERR-001": a,
        "IOX-ERR-002": b,
        "IOX-ERR-003": Finding(Seen.NOT_APPLICABLE, "needs INC"),
    }
    return Measured(upstream, kernel.package, kernel.release, findings)


ROWS = [
    _row("6.12.9", ABSENT),
    _row("6.12.43", PRESENT),
    _row("6.12.107", ABSENT),
    _row("6.18.5", PRESENT),
    _row("6.18.15", PRESENT),
    _row("7.3.4", ABSENT),
]


def test_boundaries_are_by_series() -> None:
    """Each series has its own first bad and its own first good after it; 6.12.9 is older than
    6.12.107."""
    assert [
        ("6.12", 1, 2, ("6.12.43", "6.12.107")),
        ("6.18", 2, 0, ("6.18.5", "")),
        ("7.3", 0, 1, ("", "")),
    ] == table.boundaries("IOX-ERR-001", table.in_order(reversed(ROWS)))


def test_page_is_the_same_in_any_order() -> None:
    """The page depends on what was found, not on when, nor on the words of the evidence."""
    page = table.render(CATALOGUE, ROWS)
    other = [
        Measured(
            r.upstream,
            r.package,
            r.release,
            {i: Finding(f.seen, f"{f.evidence}, 25.2 ms") for i, f in r.findings.items()},
        )
        for r in reversed(ROWS)
    ]
    assert page == table.render(CATALOGUE, other)
    assert "| 6.12 | 1 of 3 | 6.12.43 | 6.12.107 |" in page
    assert "| 6.18.15 (6.18.15+fake1) | **bad** |\n" in page
    unseen = page.partition("## Reported, and seen on no release")[2]
    assert "- **IOX-ERR-002: It is broken, b** (`" in unseen
    assert "Tried on 6.12: 6.12.9 to 6.12.107 (3 releases); 6.18: 6.18.5 to 6.18.15 (2 " in unseen
    assert "IOX-ERR-003: It is broken, c** (`" in unseen
    assert "Tried on no release that could have it." in unseen


def test_lists_are_written_as_measured() -> None:
    """Measured releases move to the list they belong to, others stay, packagings that differ are
    named apart, and the rest of the file is not touched."""
    erratum = _erratum("a", bad=("6.1.1", "6.12.107"), good=("6.18.15", "7.0.1"))
    text = (
        "# head\n\n[[erratum]]\n"
        f'id = "IOX-ERR-001"\ntitle = "x"\nreproducer = "{NODES[0]}"\ncapability = "INC"\n'
        'known_bad = ["6.1.1", "6.12.107"]\nknown_good = [\n    "6.18.15",\n    "7.0.1",\n]\n'
        "links = []\n"
    )
    rows = [*ROWS, _row("6.12.94", PRESENT), _row("6.12.94", ABSENT, revision="2")]
    new = lists.updated(text, Catalogue((erratum,)), rows)
    assert 'known_bad = ["6.1.1", "6.12.43", "6.12.94-1", "6.18.5", "6.18.15"]\n' in new
    assert 'known_good = ["6.12.9", "6.12.94-2", "6.12.107", "7.0.1", "7.3.4"]\n' in new
    assert new.startswith("# head\n\n[[erratum]]\n")
    assert new.endswith("links = []\n")
    agreed = Catalogue(
        (
            _erratum(
                "a",
                bad=("6.1.1", "6.12.43", "6.12.94-1", "6.18.5", "6.18.15"),
                good=("6.12.9", "6.12.94-2", "6.12.107", "7.0.1", "7.3.4"),
            ),
        )
    )
    assert [] == lists.differences(agreed, rows)


def test_differences_are_told_together() -> None:
    """What is to be said of several releases is one sentence, contradictions come first."""
    catalogue = Catalogue((_erratum("a"), _erratum("b", bad=("7.3.4",))))
    assert [
        "surprise: IOX-ERR-002 is absent on 7.3.4-1, which known_bad names",
        "IOX-ERR-001 is absent on 6.12.9-1, 7.3.4-1, which no list names",
        "IOX-ERR-002 is absent on 6.12.9-1, 6.12.43-1, which no list names",
        "IOX-ERR-001 is present on 6.12.43-1, which no list names",
    ] == lists.told(lists.differences(catalogue, [ROWS[0], ROWS[1], ROWS[-1]]))


def test_long_list_is_wrapped() -> None:
    """A list of many releases is broken into lines of less than a hundred columns, and is TOML."""
    import tomllib

    rows = [_row(f"6.12.{n}", PRESENT) for n in range(1, 60)]
    text = '[[erratum]]\nid = "IOX-ERR-001"\nknown_bad = []\nknown_good = []\n'
    new = lists.updated(text, Catalogue((_erratum("a"),)), rows)
    assert max(map(len, new.splitlines())) < 100
    (entry,) = tomllib.loads(new)["erratum"]
    assert entry["known_bad"] == [f"6.12.{n}" for n in range(1, 60)]


def test_entry_without_its_lines_is_refused() -> None:
    """A file whose lists cannot be found is not half-written."""
    with pytest.raises(LabError, match=r"IOX-ERR-001 has no line `known_bad"):
        lists.updated('[[erratum]]\nid = "IOX-ERR-001"\n', Catalogue((_erratum("a"),)), ROWS)


def test_newest_of_each_series_is_measured_first() -> None:
    """A sweep that is stopped has something of every series, and of two packagings the newer."""
    names = ["6.1.9", "6.1.10", "6.12.1", "6.12.3", "6.12.20", "7.0.1"]
    kernels = [*map(_kernel, names), _kernel("6.12.20", "2")]
    assert ["7.0.1-1", "6.12.20-2", "6.1.10-1", "6.12.20-1", "6.12.3-1", "6.12.1-1", "6.1.9-1"] == [
        kernel.package for kernel in in_turn(kernels)
    ]
