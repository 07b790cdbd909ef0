# SPDX-License-Identifier: MIT
"""`lab plan` and `lab check`: a plan is green when each of its kernels is proved, and red for each
way in which one is not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from lab import project
from lab.errors import UsageError
from lab.kernels import catalogue, lock
from lab.kernels.planning import planned
from lab.report.reconciliation import Kind, concluded, gathered, markdown, read_plan, reconcile

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
MATRIX = ["6.1", "6.6", "6.10", "6.12", "6.18", "newest"]
SCHEMA = json.loads((ROOT / "docs/results.schema.json").read_text())
PLAN = {
    "version": 1,
    "narrowed": [],
    "legs": [
        {"name": "6.12", "series": "6.12", "locked": True, "release": "6.12.1-cloud"},
        {"name": "6.6", "series": "6.6", "locked": False, "release": ""},
    ],
}
PLAYED = {
    "cell": "6.1",
    "series": "6.6",
    "plays": "6.1",
    "masked": ["INC"],
    "inherited": "",
    "expected": {},
    "surprises": [],
    "notes": [],
}
"""The contract of a run with `--as 6.1`."""
Jobs = dict[str, Any]
SUCCESS: Jobs = {"plan": {"result": "success"}, "lab": {"result": "success", "outputs": {}}}


def leg(asked: str, release: str) -> dict[str, Any]:
    """A leg that is proved."""
    return {
        "name": asked,
        "asked": asked,
        "kernel": {
            "series": asked,
            "upstream": f"{asked}.1",
            "package": f"{asked}.1-1",
            "release": release,
            "source": "debian",
            "locked": True,
            "verified_by": "somebody",
            "replaces": "",
        },
        "cell": asked,
        "narrowed": [],
        "contract": None,
        "launcher": "qemu",
        "wishes": [],
        "guests": [
            {
                "release": release,
                "nonce": "0" * 32,
                "accel": "tcg",
                "accel_reason": "no /dev/kvm",
                "entry": "elf",
                "boot_seconds": 3.5,
                "slowdown": 9.0,
                "wishes": [],
                "files": ".",
            }
        ],
        "at_once": 1,
        "identity": {},
        "probe": None,
        "capabilities": {},
        "errata": [],
        "collected": 2,
        "selected": 2,
        "proved": 1,
        "left_out": {},
        "verdicts": {
            "a.py::test_a": {"verdict": "passed", "seconds": 1.0, "why": ""},
            "a.py::test_b": {"verdict": "skipped", "seconds": 1.0, "why": "needs INC"},
        },
        "issues": [],
        "problems": [],
        "faults": [],
        "notes": [],
        "seconds": 9.0,
        "exit": {"code": 0, "why": "1 passed, 1 skipped"},
    }


def whole(one: dict[str, Any]) -> dict[str, Any]:
    """The results.json of a run on one kernel."""
    return {
        "version": 1,
        "ended": "2026-11-29T09:00:00Z",
        "seconds": 9.0,
        "legs": {one["name"]: one},
        "exit": one["exit"],
    }


class Results:
    """Two good legs in directories of their own, to be spoilt, and what their jobs said."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.plan: dict[str, Any] = deepcopy(PLAN)
        self.jobs: Jobs | None = deepcopy(SUCCESS)
        self.write("lab-results-6.12", leg("6.12", "6.12.1-cloud"))
        self.write("lab-results-6.6", leg("6.6", "6.6.30-generic"))

    def file(self, artifact: str) -> Path:
        return self.root / artifact / "run/results.json"

    def write(self, artifact: str, one: dict[str, Any]) -> None:
        self.file(artifact).parent.mkdir(parents=True, exist_ok=True)
        self.file(artifact).write_text(json.dumps(whole(one)))

    def change(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the leg of 6.6, so that it still is one."""
        one = leg("6.6", "6.6.30-generic")
        change(one)
        jsonschema.validate(whole(one), SCHEMA)
        self.write("lab-results-6.6", one)


def verdict(one: dict[str, Any], word: str, *, only: bool = False) -> None:
    found = {"verdict": word, "seconds": 1.0, "why": "because"}
    one["verdicts"] = {"a.py::test_a": found} if only else {**one["verdicts"], "a.py::t": found}


def ended(one: dict[str, Any], code: int, why: str) -> None:
    one["exit"] = {"code": code, "why": why}


def nothing_passed(one: dict[str, Any]) -> None:
    verdict(one, "skipped", only=True)
    ended(one, 3, "nothing passed (1 skipped)")


def lost(one: dict[str, Any]) -> None:
    verdict(one, "lost")
    ended(one, 3, "a.py::t lost")


def failed(one: dict[str, Any]) -> None:
    verdict(one, "failed")
    ended(one, 1, "a.py::t failed")


def empty(one: dict[str, Any]) -> None:
    one["verdicts"] = {}
    ended(one, 3, "nothing ran")


def green_and_empty(one: dict[str, Any]) -> None:
    one["verdicts"] = {}


def unobtainable(one: dict[str, Any]) -> None:
    one.update(kernel=None, verdicts={}, guests=[], problems=["no source has it"])
    ended(one, 3, "no source has it")


def other_kernel(results: Results) -> None:
    results.write("lab-results-6.12", leg("6.12", "6.12.2-cloud"))


def other_series() -> dict[str, Any]:
    return leg("6.6", "6.12.30-generic")


def replace(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda one: one.update({name: value})


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[Results], None]:
    return lambda results: results.change(change)


def said(text: str) -> Callable[[Results], None]:
    def spoil(results: Results) -> None:
        results.file("lab-results-6.6").write_text(text)

    return spoil


def job(name: str, result: str) -> Callable[[Results], None]:
    def spoil(results: Results) -> None:
        assert results.jobs is not None
        results.jobs[name] = {"result": result}

    return spoil


def attribute(name: str, value: object) -> Callable[[Results], None]:
    return lambda results: setattr(results, name, value)


RED: list[tuple[str, Callable[[Results], None], Kind, int]] = [
    ("missing", lambda r: r.file("lab-results-6.6").unlink(), Kind.MISSING, 3),
    ("cut off", said('{"version": 1, "legs": {"6.6": {'), Kind.UNREADABLE, 3),
    ("later version", said('{"version": 2, "legs": {}}'), Kind.UNREADABLE, 3),
    ("no legs", said("[]"), Kind.UNREADABLE, 3),
    (
        "leg of nothing",
        said('{"version": 1, "legs": {"6.6": {"asked": "6.6"}}}'),
        Kind.UNREADABLE,
        3,
    ),
    (
        "twice",
        lambda r: r.write("again", {**leg("6.6", "6.6.30-generic"), "seconds": 8.0}),
        Kind.TWICE,
        3,
    ),
    ("not planned", lambda r: r.write("more", leg("6.9", "6.9.1")), Kind.UNPLANNED, 3),
    ("interrupted", changed(lambda one: ended(one, 130, "interrupted")), Kind.CANCELLED, 3),
    ("job cancelled", job("lab", "cancelled"), Kind.CANCELLED, 3),
    ("job skipped", job("lab", "skipped"), Kind.SKIPPED, 3),
    ("job failed", job("host", "failure"), Kind.JOB_FAILED, 3),
    ("no jobs", attribute("jobs", {}), Kind.MISSING, 3),
    ("empty", changed(empty), Kind.EMPTY, 3),
    ("green and empty", changed(green_and_empty), Kind.CONTRADICTION, 3),
    ("not to be had", changed(unobtainable), Kind.EMPTY, 3),
    ("nothing passed", changed(nothing_passed), Kind.NOTHING_PROVED, 3),
    ("lost", changed(lost), Kind.NOT_PROVED, 3),
    ("failed", changed(failed), Kind.DISPROVED, 1),
    ("failed and green", changed(lambda one: verdict(one, "failed")), Kind.CONTRADICTION, 3),
    ("problem and green", changed(replace("problems", ["a gap"])), Kind.CONTRADICTION, 3),
    ("no guest", changed(replace("guests", [])), Kind.NO_GUEST, 3),
    ("other kernel", other_kernel, Kind.OTHER_KERNEL, 3),
    ("played older", changed(replace("contract", PLAYED)), Kind.OTHER_KERNEL, 3),
    ("other series", lambda r: r.write("lab-results-6.6", other_series()), Kind.OTHER_KERNEL, 3),
    ("green without a kernel", changed(replace("kernel", None)), Kind.CONTRADICTION, 3),
    ("verdict gone", changed(lambda one: one["verdicts"].popitem()), Kind.CONTRADICTION, 3),
    ("more selected", changed(replace("selected", 500)), Kind.CONTRADICTION, 3),
    ("none proved and green", changed(replace("proved", 0)), Kind.CONTRADICTION, 3),
    ("nested without end", said("[" * 100_000), Kind.UNREADABLE, 3),
    ("other tests", changed(replace("narrowed", ["-k", "echo"])), Kind.OTHER_TESTS, 3),
]


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path)


def complaints_of(results: Results) -> tuple[set[Kind], int, str]:
    found, complaints = gathered([results.root])
    complaints += reconcile(results.plan, found, results.jobs)
    conclusion = concluded(results.plan, complaints)
    told = markdown(results.plan, found, complaints)
    return {one.kind for one in complaints}, int(conclusion.code), told


def test_good_results_are_green(results: Results) -> None:
    """A copy of a file, as an upload makes of `latest`, is no second run; a release that came in
    the place of the planned one is named by the results and is none of another kernel."""
    copy = results.root / "lab-results-6.6/latest/results.json"
    copy.parent.mkdir()
    copy.write_bytes(results.file("lab-results-6.6").read_bytes())
    successor = leg("6.12", "6.12.2-cloud")
    successor["kernel"]["replaces"] = "6.12.1-cloud"
    results.write("lab-results-6.12", successor)

    kinds, code, told = complaints_of(results)

    assert (set(), 0) == (kinds, code)
    assert "| 6.12 | 6.12.2-cloud | 1 of 2 | tcg | 0 |" in told
    assert told.endswith("**lab: exit 0 \\(proved\\): 2 of 2 kernels**\n")


@pytest.mark.parametrize(
    ("spoil", "kind", "code"), [row[1:] for row in RED], ids=[row[0] for row in RED]
)
def test_spoilt_results_are_red_for_their_reason(
    results: Results, spoil: Callable[[Results], None], kind: Kind, code: int
) -> None:
    spoil(results)
    kinds, exit_code, told = complaints_of(results)
    assert kind in kinds
    assert code == exit_code
    assert f": {kind}: " in told


def test_words_of_a_selection_may_stand_in_another_order(results: Results) -> None:
    """A run puts its options first; -x leaves no test out."""
    results.plan["narrowed"] = ["tests/a.py", "-k", "echo", "-x"]
    for name, release in (("6.12", "6.12.1-cloud"), ("6.6", "6.6.30-generic")):
        one = {**leg(name, release), "narrowed": ["-k", "echo", "tests/a.py"]}
        results.write(f"lab-results-{name}", one)

    assert (set(), 0) == complaints_of(results)[:2]


def test_every_kind_of_complaint_is_tried() -> None:
    assert set(Kind) - {Kind.NO_PLAN} == {row[2] for row in RED}


def test_empty_plan_is_red(results: Results) -> None:
    """It is red with no results as well: an empty matrix runs nothing."""
    results.plan["legs"] = []
    found: list[Any] = []
    [only] = reconcile(results.plan, found, SUCCESS)
    assert (Kind.NO_PLAN, 3) == (only.kind, concluded(results.plan, [only]).code)


def lab(*words: str, where: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab", *words],
        cwd=where,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_commands(results: Results, tmp_path: Path) -> None:
    """`check` says each reason, exits with its code and appends the summary; what is no plan is a
    usage error."""
    place, summary = tmp_path / "plan.json", tmp_path / "summary.md"
    place.write_text(json.dumps(PLAN))
    summary.write_text("before\n")
    artifacts = [str(results.root / "lab-results-6.12"), str(results.root / "lab-results-6.6")]
    jobs = json.dumps(SUCCESS)

    good = lab("check", str(place), *artifacts, "--jobs", jobs, "--summary", str(summary))
    red = lab("check", str(place), artifacts[0])
    odd = lab("check", str(results.file("lab-results-6.6")), *artifacts)

    assert (0, "lab: exit 0 (proved): 2 of 2 kernels\n") == (good.returncode, good.stdout)
    assert summary.read_text().startswith("before\n| planned |")
    assert 3 == red.returncode
    assert "6.6: missing: no results came of it\nlab: exit 3 (not proved): 6.6: " in red.stdout
    assert (2, "") == (odd.returncode, odd.stdout)
    assert "is no plan of version 1" in odd.stderr


def test_matrix_of_this_repository() -> None:
    """The six series, from the table and the lock; those without an entry in it are unlocked."""
    done = lab("plan")
    assert 0 == done.returncode, done.stderr
    assert 1 == done.stdout.count("\n")
    legs = json.loads(done.stdout)["legs"]
    assert MATRIX == [one["name"] for one in legs]
    assert MATRIX == [*project.read(ROOT).kernels]
    assert {"6.1", "6.6", "6.10", "6.12", "6.18"} < {row.name for row in catalogue.catalogue()}
    locked = {release.kernel.series for release in lock.read()}
    for one in legs:
        assert one["locked"] == (one["series"] in locked)
        assert bool(one["release"]) == bool(one["entry"]) == one["locked"]
        assert one["entry"].startswith(one["release"])


def test_without_a_table_the_plan_is_the_catalogue() -> None:
    assert MATRIX == [row.name for row in planned(())]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["6.12", "6.1", "6.12"], "the kernel 6.12 is named twice"),
        (["7.3", "newest"], "7.3 and newest both mean 7.3.4"),
        (["nonsense"], "'nonsense' is neither in the lock nor a version"),
        (["./bzImage"], "is a kernel of this machine's own"),
    ],
)
def test_plan_refuses_what_no_matrix_can_have(names: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence.replace(".", r"\.").replace("/", "/")):
        planned(names)


def test_newest_wants_a_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LOCK", None)
    with pytest.raises(UsageError, match="newest means the newest locked kernel"):
        planned(["newest"])
    assert [False, False] == [row.locked for row in planned(["6.12", "6.13.7"])]


def test_plan_that_is_none(tmp_path: Path) -> None:
    place = tmp_path / "plan.json"
    leg = '{"name": "6.12"}'
    for text in (
        *("", "[]", "[" * 100_000, '{"version": 1, "legs": [{}]}', '{"version": 9, "legs": []}'),
        f'{{"version": 1, "legs": [{leg}, {leg}]}}',
    ):
        place.write_text(text)
        with pytest.raises(UsageError):
            read_plan(place)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda one: one.pop("seconds"),
        lambda one: one["verdicts"]["a.py::test_a"].pop("why"),
        lambda one: one["verdicts"]["a.py::test_a"].update(verdict="fine"),
        lambda one: one["exit"].update(code=4),
        lambda one: one["guests"][0].pop("accel_reason"),
        lambda one: one.update(more=1),
    ],
)
def test_schema_refuses_what_is_no_leg(spoil: Callable[[dict[str, Any]], object]) -> None:
    document = whole(leg("6.6", "6.6.30-generic"))
    jsonschema.validate(document, SCHEMA)
    spoil(document["legs"]["6.6"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)
