# SPDX-License-Identifier: MIT
"""A plan and the results of its jobs: is every kernel of it proved?

What keeps the whole from being green is a complaint with a kind of its own, so that "nothing came"
and "nothing was proved" are never taken for success.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from ..errors import LabError, UsageError
from ..facts.verdicts import Conclusion, ExitCode, Verdict
from . import content
from .markdown import plain, table
from .page.reading import parse

PLAN_VERSION = 1


class Kind(StrEnum):
    """Why a plan is not proved."""

    NO_PLAN = "empty plan"
    MISSING = "missing"
    TWICE = "twice"
    UNPLANNED = "not planned"
    UNREADABLE = "unreadable"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    JOB_FAILED = "job failed"
    EMPTY = "empty"
    NOTHING_PROVED = "proved nothing"
    DISPROVED = "disproved"
    NOT_PROVED = "not proved"
    OTHER_KERNEL = "other kernel"
    OTHER_TESTS = "other tests"
    OTHER_TREE = "other tree"
    NO_GUEST = "no guest"
    CONTRADICTION = "contradiction"


@dataclass(frozen=True, slots=True)
class Complaint:
    """One reason; `about` is a kernel by the plan's name, a job or a file."""

    kind: Kind
    about: str
    why: str

    def __str__(self) -> str:
        return f"{self.about}: {self.kind}: {self.why}"


@dataclass(frozen=True, slots=True)
class Found:
    """A leg of some run's results.json."""

    path: Path
    leg: Mapping[str, Any]


def read_plan(path: Path) -> Mapping[str, Any]:
    """What `lab plan` printed. Raises UsageError for what is none."""
    try:
        plan = json.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"the plan {path} cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise UsageError(f"{path} is nested too deeply to be a plan") from error
    except ValueError as error:
        raise UsageError(f"{path} is no plan: it is no JSON: {error}") from error
    legs = plan.get("legs") if isinstance(plan, dict) else None
    if not isinstance(legs, list) or plan.get("version") != PLAN_VERSION:
        raise UsageError(f"{path} is no plan of version {PLAN_VERSION}, as `lab plan` prints")
    for leg in legs:
        if not isinstance(leg, dict) or not isinstance(leg.get("name"), str):
            raise UsageError(f"{path} has a leg without a name")
        for key in ("release", "series"):
            if not isinstance(leg.get(key, ""), str):
                raise UsageError(f"{path}: the {key} of {leg['name']} is {leg[key]!r}, not a text")
        if leg.get("locked") and not leg.get("release"):
            raise UsageError(f"{path}: {leg['name']} is locked and has no release")
    narrowed = plan.get("narrowed", [])
    if not isinstance(narrowed, list) or not all(isinstance(word, str) for word in narrowed):
        raise UsageError(f"{path}: narrowed is {narrowed!r}, not a list of texts")
    names = [leg["name"] for leg in legs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{path} names {', '.join(twice)} more than once")
    return dict(plan)


def gathered(places: Iterable[Path]) -> tuple[list[Found], list[Complaint]]:
    """All legs of the results in these files and directories, and what cannot be read. A copy of a
    file (`latest`, where links became directories) counts once."""
    found: list[Found] = []
    complaints: list[Complaint] = []
    seen: set[str] = set()
    for place in places:
        if not place.exists():
            complaints.append(Complaint(Kind.MISSING, str(place), "there is no such file"))
            continue
        files = sorted(place.rglob(content.FILE)) if place.is_dir() else [place]
        for file in files:
            try:
                text = file.read_bytes()
                key = hashlib.sha256(text).hexdigest()
                if key in seen:
                    continue
                seen.add(key)
                whole = parse(text, file).whole
            except OSError as error:
                why = f"it cannot be read: {error.strerror}"
                complaints.append(Complaint(Kind.UNREADABLE, str(file), why))
            except LabError as error:
                why = "it " + error.message.removeprefix(f"{file} ")
                complaints.append(Complaint(Kind.UNREADABLE, str(file), why))
            else:
                found += [Found(file, leg) for leg in whole["legs"].values()]
                complaints += _end(file, whole)
    return found, complaints


def reconcile(
    plan: Mapping[str, Any],
    found: Sequence[Found],
    jobs: Mapping[str, Any] | None = None,
) -> list[Complaint]:
    """What keeps this plan from being proved by these results; `jobs` is what a workflow knows of
    the jobs before this one (GitHub's `toJSON(needs)`), None outside of one."""
    complaints = list(_jobs(jobs)) if jobs is not None else []
    names = [leg["name"] for leg in plan["legs"]]
    if not names:
        complaints.append(Complaint(Kind.NO_PLAN, "plan", "it names no kernel"))
    for leg in plan["legs"]:
        name = leg["name"]
        mine = [one for one in found if one.leg.get("asked") == name]
        if not mine:
            complaints.append(Complaint(Kind.MISSING, name, "no results came of it"))
        elif len(mine) > 1:
            where = ", ".join(str(one.path) for one in mine)
            complaints.append(Complaint(Kind.TWICE, name, f"{len(mine)} runs say so: {where}"))
        for one in mine:
            complaints += _leg(leg, one.leg, plan.get("narrowed", []))
    legs = {one.leg["asked"]: one.leg for one in found if one.leg["asked"] in names}
    complaints += [*_trees(legs), *_ids(legs)]
    for one in found:
        if one.leg.get("asked") not in names:
            about = str(one.leg.get("asked"))
            complaints.append(Complaint(Kind.UNPLANNED, about, f"{one.path} is in no plan"))
    return complaints


def concluded(plan: Mapping[str, Any], complaints: Sequence[Complaint]) -> Conclusion:
    """The exit code: 1 as soon as something is disproved, 3 for all else."""
    if not complaints:
        number = len(plan["legs"])
        return Conclusion(ExitCode.PROVED, f"{number} of {number} kernels")
    first = next((one for one in complaints if one.kind is Kind.DISPROVED), complaints[0])
    code = ExitCode.DISPROVED if first.kind is Kind.DISPROVED else ExitCode.NOT_PROVED
    more = f" and {len(complaints) - 1} more" if len(complaints) > 1 else ""
    return Conclusion(code, f"{first}{more}")


def markdown(
    plan: Mapping[str, Any], found: Sequence[Found], complaints: Sequence[Complaint]
) -> str:
    """The plan's legs and what is wrong, for a step summary."""
    by_name = {one.leg.get("asked"): one.leg for one in found}
    rows = [_row(leg["name"], by_name.get(leg["name"])) for leg in plan["legs"]]
    lines = [*table(("planned", "ran", "proved", "accelerator", "exit"), rows), ""]
    lines += [f"- {plain(str(complaint))}" for complaint in complaints]
    return "\n".join([*lines, "", f"**{plain(str(concluded(plan, complaints)))}**", ""])


def _row(name: str, leg: Mapping[str, Any] | None) -> Sequence[str]:
    if leg is None or leg["kernel"] is None:
        return (name, "-", "-", "-", str(leg["exit"]["why"]) if leg else "no results")
    accel = ", ".join(dict.fromkeys(str(guest["accel"]) for guest in leg["guests"]))
    proved = f"{leg['proved']} of {leg['selected']}"
    return (name, str(leg["kernel"]["release"]), proved, accel or "-", str(leg["exit"]["code"]))


def _jobs(jobs: Mapping[str, Any]) -> Iterable[Complaint]:
    if not jobs:
        yield Complaint(Kind.MISSING, "jobs", "the workflow names no job before this one")
    kinds = {"skipped": Kind.SKIPPED, "cancelled": Kind.CANCELLED}
    for name, job in jobs.items():
        result = job.get("result") if isinstance(job, dict) else None
        if result != "success":
            kind = kinds.get(str(result), Kind.JOB_FAILED)
            yield Complaint(kind, f"job {name}", f"its result is {result!r}")


def _end(file: Path, whole: Mapping[str, Any]) -> Iterable[Complaint]:
    """What a run says of itself that none of its kernels says: its files are not whole, say."""
    code, why = whole["exit"]["code"], whole["exit"]["why"]
    if code == ExitCode.PROVED or any(leg["exit"]["code"] for leg in whole["legs"].values()):
        return
    kinds = {ExitCode.DISPROVED: Kind.DISPROVED, ExitCode.INTERRUPTED: Kind.CANCELLED}
    why = f"each of its kernels says 0, and the run says {code}: {why}"
    yield Complaint(kinds.get(code, Kind.NOT_PROVED), str(file), why)


def _trees(legs: Mapping[str, Mapping[str, Any]]) -> Iterable[Complaint]:
    """Runs whose guests had other files than those of the first kernel of the plan."""
    first = ""
    for name, leg in legs.items():
        sha256 = leg["identity"].get("tree_sha256", "")
        if not sha256:
            continue
        if not first:
            first, its = name, sha256
        elif sha256 != its:
            why = f"the tree in its guests had the sha256 {sha256[:12]}, that of {first} {its[:12]}"
            yield Complaint(Kind.OTHER_TREE, name, why)


def _ids(legs: Mapping[str, Mapping[str, Any]]) -> Iterable[Complaint]:
    """Kernels without tests that others have: tests are collected on the host, so that the kernel
    decides about none of them."""
    ran = {name: leg["verdicts"] for name, leg in legs.items() if leg["verdicts"]}
    every = dict.fromkeys(test for verdicts in ran.values() for test in verdicts)
    for name, verdicts in ran.items():
        if lacking := [test for test in every if test not in verdicts]:
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            why = f"it has no verdict for {lacking[0]}{more}, and another kernel has"
            yield Complaint(Kind.OTHER_TESTS, name, why)


def _leg(
    planned: Mapping[str, Any], leg: Mapping[str, Any], narrowed: Sequence[str]
) -> Iterable[Complaint]:
    """What is wrong with one leg."""
    name, kernel, verdicts = planned["name"], leg["kernel"], leg["verdicts"]
    code, why = leg["exit"]["code"], str(leg["exit"]["why"])
    if code == ExitCode.INTERRUPTED:
        yield Complaint(Kind.CANCELLED, name, why)
    elif code == ExitCode.DISPROVED:
        yield Complaint(Kind.DISPROVED, name, why)
    elif not verdicts:
        yield Complaint(Kind.EMPTY, name, why)
    elif not any(found["verdict"] == Verdict.PASSED for found in verdicts.values()):
        yield Complaint(Kind.NOTHING_PROVED, name, why)
    elif code != ExitCode.PROVED:
        yield Complaint(Kind.NOT_PROVED, name, why)
    own = content.own_conclusion(leg)
    if code == ExitCode.PROVED and own.code is not ExitCode.PROVED:
        yield Complaint(Kind.CONTRADICTION, name, f"it says 0, and its verdicts say: {own}")
    passed = sum(found["verdict"] == Verdict.PASSED for found in verdicts.values())
    if (leg["selected"], leg["proved"]) != (len(verdicts), passed):
        why = (
            f"it says that {leg['proved']} of {leg['selected']} were proved, and by its verdicts "
            f"{passed} of {len(verdicts)} passed"
        )
        yield Complaint(Kind.CONTRADICTION, name, why)
    if kernel is None:
        if code == ExitCode.PROVED:
            why = "it says 0, and names no kernel that it ran on"
            yield Complaint(Kind.CONTRADICTION, name, why)
        return
    if code == ExitCode.PROVED and not leg["identity"].get("tree_sha256"):
        why = "it says 0, and not which tree its guests had"
        yield Complaint(Kind.CONTRADICTION, name, why)
    plays = (leg["contract"] or {}).get("plays")
    if plays:
        why = f"{kernel['release']} ran, and did without what {plays} lacks (--as)"
        yield Complaint(Kind.OTHER_KERNEL, name, why)
    if planned.get("locked") and planned["release"] not in (
        kernel["release"],
        kernel.get("replaces"),
    ):
        yield Complaint(
            Kind.OTHER_KERNEL, name, f"{kernel['release']} ran, planned was {planned['release']}"
        )
    series = str(planned.get("series") or "")
    if (
        series
        and not planned.get("locked")
        and not f"{kernel['release']}.".startswith(f"{series}.")
    ):
        why = f"{kernel['release']} ran, planned was one of {series}"
        yield Complaint(Kind.OTHER_KERNEL, name, why)
    if _narrowing(leg["narrowed"]) != _narrowing(narrowed):
        yield Complaint(
            Kind.OTHER_TESTS,
            name,
            f"it ran {_words(leg['narrowed'])}, planned was {_words(narrowed)}",
        )
    if verdicts and not any(
        guest["release"] == kernel["release"] and guest["nonce"] for guest in leg["guests"]
    ):
        yield Complaint(Kind.NO_GUEST, name, f"no guest proved that it was {kernel['release']}")


def _narrowing(words: Sequence[str]) -> list[str]:
    """The words that say which tests run, sorted: a run puts its options first."""
    return sorted(word for word in words if word not in ("-x", "--exitfirst"))


def _words(words: Sequence[str]) -> str:
    return " ".join(words) or "everything"
