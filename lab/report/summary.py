# SPDX-License-Identifier: MIT
"""A run's report: what it knows, and the text below the tests."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import COMMAND
from ..facts.kernel import BUILT
from ..facts.verdicts import Conclusion, Verdict, counted, good

if TYPE_CHECKING:
    from ..facts.evidence import Life
    from ..facts.issues import IssueRow
    from ..facts.kernel import Kernel
    from ..facts.probed import Finding, Probed
    from ..facts.records import Record
    from ..rules.contract import Comparison, Row
    from ..rules.errata import Erratum
    from ..vm import Guest, Launcher
    from ..wishes import Wishes

EVIDENCE_WIDTH = 60
LOCAL = "local"
"""The source of kernels of this machine's own; see lab.kernels.local."""
MOST_FILES = 8
"""More files than that are not named one by one in a line to type."""
MOST_NAMED = 20
"""So many tests that never ran are named; of more, results.json has the names."""


@dataclass(frozen=True, slots=True)
class RunReport:
    """Everything there is to say about one run on one kernel."""

    kernel: Kernel
    asked: str
    """The name by which the kernel was asked for."""
    cell: str
    """The kernel's name in the report: "6.12.107", or "6.12.107 as 6.6"."""
    times: int
    """How often each test was to run."""
    narrowed: Sequence[str]
    """What this run was narrowed by, as arguments of pytest; none if it was a whole one."""
    remembered: Sequence[str]
    """What it was narrowed by that depends on the run before it (--lf), so that no other run can
    be."""
    row: Row | None
    """What the contract promises this kernel; None if it has no row for it."""
    comparison: Comparison
    launcher: Launcher
    wishes: Wishes
    """What every guest was asked to have."""
    typed: Sequence[str]
    """What of that was not in the repository's table, as options of `lab test`."""
    by_make: bool
    """Whether the repository's Makefile runs tests again; see `Project.by_make`."""
    own_wishes: Mapping[str, Wishes]
    """What single tests asked of another guest, by their ids."""
    guests: Sequence[Guest]
    """All guests that came up, for what they said of themselves."""
    lives: Sequence[Life]
    """When each of them was there."""
    lanes: int
    """How many of them ran tests at once."""
    identity: Mapping[str, str]
    """The hashes of what ran: the tree, its build products, its bytecode; empty if nothing was
    prepared."""
    probe: Probed | None
    errata: Sequence[Erratum]
    """All that the repository has reproducers for."""
    records: Mapping[str, Record]
    collected: int
    left_out: Mapping[str, int]
    """How many tests were left out, by marker."""
    slow: frozenset[str]
    issues: Sequence[IssueRow]
    issues_of: Mapping[str, Sequence[int]]
    """Which issues a test proves, by its id."""
    problems: Sequence[str]
    faults: Sequence[str]
    notes: Sequence[str]
    tail: str
    hint: str
    results: Path
    started: float
    """By `time.monotonic()`."""
    seconds: float
    conclusion: Conclusion

    @property
    def proved(self) -> int:
        """How many tests passed."""
        return sum(1 for r in self.records.values() if r.verdict is Verdict.PASSED)

    def reproduce(self, *names: str) -> str:
        """The line that runs these tests again on the same kernel; their files, if many."""
        slow = bool(self.slow.intersection(names))
        files = tuple(dict.fromkeys(name.split("::")[0] for name in names))
        asked = self.typed
        some = names if len(names) == 1 else files if len(files) <= MOST_FILES else ()
        plays = self.row.plays if self.row else None
        launcher = self.launcher.name if self.launcher.words else None
        if self.by_make:
            name = make_word(self._name) if self.kernel.source == LOCAL else self._name
            # Without names it is the run itself: a line is to be read, and to be typed.
            text = shlex.join([*asked, *self.narrowed])
            which = make_variable(some, asked) if some else f"ARGS={make_word(text)}" * bool(text)
            words = [f"make lab KERNEL={name}"]
            words += [f"AS={plays}"] * bool(plays) + [f"LAUNCHER={launcher}"] * bool(launcher)
            line = " ".join([*words, *["SLOW=1"] * slow, *[which] * bool(which)])
        else:
            words = [*COMMAND.split(), "test", "--kernel", self._name]
            words += (["--as", plays] if plays else []) + ["--lab-slow"] * slow
            words += ["--launcher", launcher] if launcher else []
            line = shlex.join([*words, *asked, *(some or self.narrowed)])
        # A test brings its guest along: that is for the reader.
        others = dict.fromkeys(self.own_wishes[name] for name in names if name in self.own_wishes)
        with_what = " and one with ".join(map(str, others))
        return f"{line}  # in a guest with {with_what}" if others else line

    @property
    def _name(self) -> str:
        """What names this very kernel."""
        if self.kernel.source == LOCAL:
            return self.asked  # nothing but its path does
        # An upstream version may be packaged more than once; of a locked one the lock decides.
        return self.kernel.upstream if self.kernel.locked else self.kernel.package


def render(report: RunReport, *, tables: bool = True) -> list[str]:
    """The report as lines of plain text; without `tables`, what is in those of `lab.report.kernels`
    is left out."""
    lines = [rule(f"kernel {report.cell}")]
    lines += _guest_lines(report)
    if report.probe is not None:
        lines += ["", *_probe_table(report.probe, report.row)] if tables else []
        lines += _contract_lines(report)
    if report.issues and tables:
        lines += ["", *_issue_table(report)]
    lines += _red_lines(report)
    if report.times > 1:
        lines += how_often(report.records, report.times)
    for head, texts in (
        ("disproved", report.faults),
        ("not proved", report.problems),
        ("note", report.notes),
    ):
        lines += [f"{head}: {text}" for text in texts]
    if report.hint:
        lines.append(f"hint: {report.hint}")
    if report.tail.strip():
        lines += ["last lines of the guest:", *(f"  {t}" for t in report.tail.splitlines()[-40:])]
    lines.append("")
    left_out = ", ".join(f"{n} {marker}" for marker, n in report.left_out.items() if n)
    lines.append(
        f"collected {report.collected} / selected {len(report.records)} / proved {report.proved}"
        + (f" (left out: {left_out})" if left_out else "")
        + f" in {report.seconds:.0f} s: {counted(r.verdict for r in report.records.values())}"
    )
    lines.append(f"results: {report.results}")
    return lines


def how_often(records: Mapping[str, Record], times: int) -> list[str]:
    """How often each verdict came: each test whose verdict was not the same every time, and how
    many there are of the others."""
    lines = ["", f"how often, in {times} runs:"]
    same: dict[str, list[str]] = {}
    for name, record in records.items():
        words = counted(run.verdict for run in record.runs)
        if len({run.verdict for run in record.runs}) > 1:
            lines.append(f"  {words}: {name}")
        else:
            same.setdefault(words, []).append(name)
    for words, names in same.items():
        if len(names) <= MOST_NAMED:
            lines += [f"  {words}: {name}" for name in names]
        else:
            lines.append(f"  {words}: {len(names)} tests, each")
    return lines


def make_variable(names: Sequence[str], options: Sequence[str] = ()) -> str:
    """The make variables that select these tests and give these options.

    The Makefile splits T at spaces; a node id that holds one goes into ARGS, which is shell text.
    In both, make expands `$`.
    """
    plain = all(len(name.split()) == 1 for name in names)
    if plain:
        more = f" ARGS={make_word(shlex.join(options))}" if options else ""
        return f"T={make_word(' '.join(names))}{more}"
    return f"ARGS={make_word(shlex.join([*options, *names]))}"


def make_word(text: str) -> str:
    """The value of a make variable as a word for the shell."""
    text = text.replace("$", "$$")
    quoted = "'" in text and not set(text) & set('"\\`!$')
    return f'"{text}"' if quoted else shlex.quote(text)


def _red_lines(report: RunReport) -> list[str]:
    """Each test that is not good with the line that runs it again; those that never ran by name,
    together below the reason they share."""
    red = {n: r for n, r in report.records.items() if not good(r.verdict)}
    if not red:
        return []
    lines = ["", "not good, and how to see it again:"]
    never: dict[str, list[str]] = {}
    for name, record in red.items():
        if record.verdict is Verdict.NEVER_RAN:
            never.setdefault(record.why, []).append(name)
            continue
        lines.append(f"  {record.verdict}: {name}" + (f": {record.why}" if record.why else ""))
        lines.append(f"    {report.reproduce(name)}")
    for why, names in never.items():
        if len(names) > MOST_NAMED:
            lines.append(f"  {len(names)} tests never ran, because {why} (results.json names them)")
        else:
            lines.append(f"  never ran, because {why}:")
            lines += [f"    {name}" for name in names]
        lines.append(f"    {report.reproduce(*names)}")
    return lines


def rule(text: str) -> str:
    """The line above a part of the report."""
    return f" {text} ".center(80, "-")


def _guest_lines(report: RunReport) -> list[str]:
    if not report.guests:
        return ["no guest came up"]
    guest = report.guests[0]
    return [
        f"release {guest.uname}, package {report.kernel.package} from {report.kernel.source}",
        *([f"verified by {report.kernel.verified_by}"] if report.kernel.source == BUILT else ()),
        f"accel {guest.accel.kind}: {guest.accel.reason}",
        *([f"booted {report.launcher.words}"] if report.launcher.words else ()),
        *([f"guests with {report.wishes}"] if report.wishes else ()),
        *([f"entered {guest.entry}"] if guest.entry else ()),
        *(
            f"agent after {one.boot_seconds:.1f} s, {one.slowdown:.1f}x slower than here"
            + (f", with {one.wishes}" if one.wishes != report.wishes else "")
            for one in report.guests
        ),
        *([f"{report.lanes} guests at once"] if report.lanes > 1 else ()),
        *(
            [f"{len(report.guests)} guests were needed"]
            if len(report.guests) > report.lanes
            else ()
        ),
    ]


def _contract_lines(report: RunReport) -> list[str]:
    """Where the promises come from, and each surprise with the line that would settle it."""
    lines = []
    if report.row is not None:
        lines.append(f"promised: what the contract says of {report.row.name}; * not measured there")
        lines += [text for text in (report.row.inherited(),) if text]
    lines += [f"note: {text}" for text in report.comparison.notes]
    lines += [f"surprise: {surprise}" for surprise in report.comparison.surprises]
    return lines


def _probe_table(probe: Probed, row: Row | None) -> list[str]:
    if probe.error is not None:
        return [f"probe: {probe.error}"]
    title = "capability"
    width = max(map(len, (title, *probe.findings)))
    head = f"{title:<{width}}  declared  accepted  observed  promised  evidence"
    rows = [
        f"{name:<{width}}  {_word(f.declared):<8}  {_word(f.accepted):<8}  "
        f"{_word(f.observed):<8}  {_promise(row, name):<8}  {_evidence(f)}".rstrip()
        for name, f in probe.findings.items()
    ]
    return [head, *rows]


def _word(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"


def _promise(row: Row | None, name: str) -> str:
    cell = row.cells.get(name) if row is not None else None
    if cell is None:
        return "-"
    # What is inherited was not measured on this series, whatever it was on the other.
    ours = row is not None and cell.series in ("", row.series)
    known = ours and cell.basis != "assumed"
    return _word(cell.present) + ("" if known else "*")


def _evidence(finding: Finding) -> str:
    text = ", ".join(f"{key}={value}" for key, value in finding.evidence.items())
    text = text if len(text) <= EVIDENCE_WIDTH else text[: EVIDENCE_WIDTH - 3] + "..."
    return text if finding.observed or not finding.note else finding.note


def _issue_table(report: RunReport) -> list[str]:
    width = max(12, len(report.cell))
    head = f"{'issue':<6}  {report.cell:<{width}}  tests  proved  absent"
    return [
        head,
        *(
            f"#{row.issue:<5}  {row.word:<{width}}  {row.tests:>5}  {row.proved:>6}"
            f"  {row.absent:>6}"
            for row in report.issues
        ),
    ]
