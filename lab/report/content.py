# SPDX-License-Identifier: MIT
"""results.json: everything that a run says, for programs.

docs/results.schema.json describes it. A verdict is found by kernel and test:
`legs[KERNEL]["verdicts"][ID]`; a leg is one kernel of a run. A change that breaks a reader raises
`VERSION`; what only adds a key does not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..facts.verdicts import Conclusion, Tally, Verdict, conclude, counted

if TYPE_CHECKING:
    from ..facts.evidence import Evidence, Part
    from ..facts.records import Record
    from ..rules.errata import Erratum
    from .summary import RunReport

VERSION = 1
FILE = "results.json"


def content(
    legs: Sequence[Mapping[str, Any]],
    conclusion: Conclusion,
    seconds: float,
    *,
    selection: str | None = None,
) -> dict[str, Any]:
    """The whole file: these legs, and what the run that they are of came to after `seconds`.
    `selection` is the same for each run of the same selection."""
    named: dict[str, Mapping[str, Any]] = {}
    for leg in legs:
        name = leg["name"]
        if name in named:  # an upstream version may be packaged more than once
            name = f"{name} ({leg['asked']})"
        named[name] = leg
    ended = datetime.now(UTC)
    return {
        "version": VERSION,
        "began": _utc(ended - timedelta(seconds=seconds)),
        "ended": _utc(ended),
        "seconds": round(seconds, 3),
        "selection": selection,
        "previous": None,
        "notes": [],
        "legs": named,
        "exit": _exit(conclusion),
    }


def with_exit(whole: Mapping[str, Any], conclusion: Conclusion) -> dict[str, Any]:
    """The same file with another conclusion of the run."""
    return {**whole, "exit": _exit(conclusion)}


def write(directory: Path, whole: Mapping[str, Any]) -> None:
    """Write it into the directory: all of it or nothing. Raises OSError."""
    made = directory / f".{FILE}.{os.getpid()}"
    try:
        made.write_text(json.dumps(whole, indent=2) + "\n")
        made.replace(directory / FILE)
    except OSError:
        made.unlink(missing_ok=True)
        raise


def leg(report: RunReport, base: Path) -> dict[str, Any]:
    """What one kernel's part of a run says; `base` is the directory of the whole run's files."""
    return {
        "name": report.cell,
        "asked": report.asked,
        "kernel": asdict(report.kernel),
        "cell": report.row.name if report.row else report.kernel.series,
        "narrowed": [*report.narrowed, *report.remembered],
        "contract": _contract(report),
        "launcher": report.launcher.name,
        "wishes": report.wishes.options(),
        "guests": [
            {
                "release": guest.uname,
                "nonce": guest.nonce,
                "accel": str(guest.accel.kind),
                "accel_reason": guest.accel.reason,
                "entry": guest.entry,
                "boot_seconds": guest.boot_seconds,
                "slowdown": guest.slowdown,
                "wishes": guest.wishes.options(),
                "files": str(guest.console.parent.relative_to(base)),
                "number": life.number,
                "began": _since(report, life.began),
                "up": _since(report, life.up),
                "ended": _since(report, life.ended or report.started + report.seconds),
            }
            for guest, life in zip(report.guests, report.lives, strict=True)
        ],
        "at_once": report.lanes,
        "repeat": report.times,
        "identity": dict(report.identity),
        "probe": report.probe.to_object() if report.probe else None,
        "capabilities": _capabilities(report),
        "errata": list(_errata(report)),
        "collected": report.collected,
        "selected": len(report.records),
        "proved": report.proved,
        "left_out": dict(report.left_out),
        "verdicts": {
            name: _record(report, r, base)
            | ({"runs": [_record(report, run, base) for run in r.runs]} if r.runs else {})
            | ({"guest": report.own_wishes[name].options()} if name in report.own_wishes else {})
            | ({"issues": list(report.issues_of[name])} if name in report.issues_of else {})
            | {"reproduce": report.reproduce(name)}
            for name, r in report.records.items()
        },
        "issues": [asdict(row) | {"word": row.word} for row in report.issues],
        "problems": list(report.problems),
        "faults": list(report.faults),
        "notes": list(report.notes),
        "seconds": round(report.seconds, 3),
        "exit": _exit(report.conclusion),
    }


def leg_not_begun(asked: str, conclusion: Conclusion) -> dict[str, Any]:
    """A leg of which nothing could be asked: its kernel, say, could not be had."""
    return {
        "name": asked,
        "asked": asked,
        "kernel": None,
        "cell": None,
        "narrowed": [],
        "contract": None,
        "launcher": None,
        "wishes": [],
        "guests": [],
        "at_once": 0,
        "repeat": 1,
        "identity": {},
        "probe": None,
        "capabilities": {},
        "errata": [],
        "collected": 0,
        "selected": 0,
        "proved": 0,
        "left_out": {},
        "verdicts": {},
        "issues": [],
        "problems": [conclusion.why],
        "faults": [],
        "notes": [],
        "seconds": 0.0,
        "exit": _exit(conclusion),
    }


def counts(verdicts: Mapping[str, Mapping[str, Any]]) -> str:
    """The verdicts of a leg in words."""
    return counted(Verdict(found["verdict"]) for found in verdicts.values())


def _record(report: RunReport, record: Record, base: Path) -> dict[str, Any]:
    """What is said of a test, or of one of its runs."""
    plain = {
        "verdict": record.verdict.value,
        "seconds": round(record.seconds, 3),
        "why": record.why,
    }
    subtests = {"subtests": list(record.subtests)} if record.subtests else {}
    return plain | subtests | _evidence(report, record.evidence, base)


def own_conclusion(leg: Mapping[str, Any]) -> Conclusion:
    """What a leg's verdicts come to, whatever its exit says."""
    verdicts = {name: Verdict(found["verdict"]) for name, found in leg["verdicts"].items()}
    contract = leg["contract"] or {"surprises": []}
    surprises = {s["capability"]: Verdict.SURPRISE for s in contract["surprises"]}
    return conclude(Tally(verdicts | surprises, problems=leg["problems"], faults=leg["faults"]))


def _exit(conclusion: Conclusion) -> dict[str, Any]:
    return {"code": int(conclusion.code), "why": conclusion.why}


def _evidence(report: RunReport, kept: Evidence | None, base: Path) -> dict[str, Any]:
    """When and where a test ran, and which parts of which files are about it."""
    if kept is None:
        return {}
    nonces = [guest.nonce for guest in report.guests]
    return {
        "began": _since(report, kept.began),
        "ran_in": nonces.index(kept.nonce),
        "output": _part(kept.output, base),
        "kernel_log": _part(kept.kernel_log, base),
        "complaints": list(kept.complaints),
    } | ({"hang": _part(kept.hang, base)} if kept.hang else {})


def _part(part: Part | None, base: Path) -> dict[str, Any] | None:
    if part is None:
        return None
    return {"file": str(part.file.relative_to(base)), "begin": part.begin, "end": part.end}


def _since(report: RunReport, moment: float) -> float:
    """Seconds since the run began."""
    return round(max(0.0, moment - report.started), 3)


def _utc(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _capabilities(report: RunReport) -> dict[str, Any]:
    """What was seen of each capability beside what is promised."""
    found = report.probe.findings if report.probe else {}
    promised = report.row.cells if report.row else {}
    surprising = {surprise.capability for surprise in report.comparison.surprises}
    table = {}
    for name in dict.fromkeys([*found, *promised]):
        finding, cell = found.get(name), promised.get(name)
        table[name] = {
            "declared": finding.declared if finding else None,
            "accepted": finding.accepted if finding else None,
            "observed": finding.observed if finding else None,
            "promised": cell.present if cell else None,
            "basis": cell.basis.value if cell else None,
            "from": (cell.series or cell.release) if cell else None,
            "surprise": name in surprising,
        }
    return table


def _errata(report: RunReport) -> Iterable[dict[str, Any]]:
    """Each erratum whose reproducer was selected, with what came of that."""
    kernel = report.kernel
    for erratum in report.errata:
        record = report.records.get(erratum.reproducer)
        if record is not None:
            yield {
                "id": erratum.id,
                "title": erratum.title,
                "reproducer": erratum.reproducer,
                "listed": _listed(erratum, kernel.upstream, kernel.package),
                "verdict": record.verdict.value,
                "why": record.why,
            }


def _listed(erratum: Erratum, upstream: str, package: str) -> str | None:
    expected = erratum.expected(upstream, package)
    return None if expected is None else "known_bad" if expected else "known_good"


def _contract(report: RunReport) -> dict[str, Any] | None:
    row = report.row
    if row is None:
        return None
    return {
        "cell": row.name,
        "series": row.series,
        "plays": row.plays,
        "masked": list(row.masked),
        "inherited": row.inherited(),
        "expected": {
            name: {
                "present": cell.present,
                "basis": cell.basis.value,
                "from": cell.series or cell.release,
            }
            for name, cell in row.cells.items()
        },
        "surprises": [asdict(surprise) for surprise in report.comparison.surprises],
        "notes": list(report.comparison.notes),
    }
