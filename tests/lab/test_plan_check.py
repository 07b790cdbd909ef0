# SPDX-License-Identifier: MIT
"""`lab plan` and `lab check`: a plan is green when each of its kernels is proved, and red for each
way in which one is not."""

from __future__ import annotations

import json
import re
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
        "identity": {"tree_sha256": "a" * 64},
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


def failed_and_green(one: dict[str, Any]) -> None:
    """As many tests as before, and as many of them passed."""
    one["verdicts"]["a.py::test_b"].update(verdict="failed")


def fewer(one: dict[str, Any]) -> None:
    one["verdicts"].popitem()
    one.update(selected=1)


def other_ids(one: dict[str, Any]) -> None:
    one["verdicts"] = {f"b.py::{number}": v for number, v in enumerate(one["verdicts"].values())}


def replace(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda one: one.update({name: value})


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[Results], None]:
    return lambda results: results.change(change)


def spoilt(change: Callable[[dict[str, Any]], object]) -> Callable[[Results], None]:
    """Change the leg of 6.6 so that it is none."""

    def spoil(results: Results) -> None:
        one = leg("6.6", "6.6.30-generic")
        change(one)
        results.write("lab-results-6.6", one)

    return spoil


def end(code: int) -> Callable[[Results], None]:
    """The run ends so, and no kernel of it says why."""

    def spoil(results: Results) -> None:
        text = json.loads(results.file("lab-results-6.6").read_text())
        text["exit"] = {"code": code, "why": "the files are not whole"}
        results.file("lab-results-6.6").write_text(json.dumps(text))

    return spoil


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
    ("failed and green", changed(failed_and_green), Kind.CONTRADICTION, 3),
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
    ("deselected", changed(replace("narrowed", ["--deselect=a.py::t"])), Kind.OTHER_TESTS, 3),
    ("fewer tests", changed(fewer), Kind.OTHER_TESTS, 3),
    ("other ids", changed(other_ids), Kind.OTHER_TESTS, 3),
    ("other tree", changed(replace("identity", {"tree_sha256": "b" * 64})), Kind.OTHER_TREE, 3),
    ("no tree and green", changed(replace("identity", {})), Kind.CONTRADICTION, 3),
    (
        "guest without a nonce",
        spoilt(lambda one: one["guests"][0].update(nonce="")),
        Kind.NO_GUEST,
        3,
    ),
    ("run disproved", end(1), Kind.DISPROVED, 1),
    ("run not proved", end(3), Kind.NOT_PROVED, 3),
    ("run interrupted", end(130), Kind.CANCELLED, 3),
    ("exit is no number", end(False), Kind.UNREADABLE, 3),
    ("verdict is none", spoilt(lambda one: verdict(one, "excellent")), Kind.UNREADABLE, 3),
    ("no identity", spoilt(replace("identity", None)), Kind.UNREADABLE, 3),
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
    assert not re.search(r"\w+(Error|Exception)\b", told)


def test_words_of_a_selection_may_stand_in_another_order(results: Results) -> None:
    """A run puts its options first; -x leaves no test out."""
    results.plan["narrowed"] = ["tests/a.py", "-k", "echo", "-x"]
    for name, release in (("6.12", "6.12.1-cloud"), ("6.6", "6.6.30-generic")):
        one = {**leg(name, release), "narrowed": ["-k", "echo", "tests/a.py"]}
        results.write(f"lab-results-{name}", one)

    assert (set(), 0) == complaints_of(results)[:2]


def test_a_run_may_do_without_a_kernel_of_no_plan(results: Results) -> None:
    """With ALLOW_MISSING a run is 0 although one of its kernels is 3; that kernel is not proved."""
    one = leg("6.6", "6.6.30-generic")
    unobtainable(one)
    one.update(selected=0, proved=0)
    text = {**whole(one), "exit": {"code": 0, "why": "6.12: 1 passed; 6.6 is missing"}}
    results.file("lab-results-6.6").write_text(json.dumps(text))

    assert ({Kind.EMPTY}, 3) == complaints_of(results)[:2]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "it is no JSON, cut off or edited: Expecting value"),
        ("[" * 100_000, "it is nested too deeply to be a results.json"),
        ('{"version": 2}', "it is of version 2, and this lab reads 1"),
        ('{"version": 1}', "it is not as the lab writes it, so it was edited: it has no ended"),
        ("[]", "it is not as the lab writes it, so it was edited: it is [], not an object"),
    ],
)
def test_what_is_unreadable_is_told_in_a_sentence(
    results: Results, text: str, sentence: str
) -> None:
    results.file("lab-results-6.6").write_text(text)
    _, complaints = gathered([results.root])
    [only] = complaints
    assert Kind.UNREADABLE == only.kind
    assert only.why.startswith(sentence)
    assert str(results.root) not in only.why


def test_summary_that_cannot_be_written_is_not_proved(results: Results, tmp_path: Path) -> None:
    """What came of the check is said all the same, and 1 stays 1."""
    place, summary = tmp_path / "plan.json", tmp_path / "no/where/summary.md"
    place.write_text(json.dumps(PLAN))
    words = ("check", str(place), str(results.root), "--summary", str(summary))

    good = lab(*words)
    results.change(failed)
    red = lab(*words)

    why = f"the summary cannot be written to {summary}: No such file or directory\n"
    assert (3, f"lab: exit 3 (not proved): {why}", "") == (
        good.returncode,
        good.stdout,
        good.stderr,
    )
    assert (1, f"lab: {why}") == (red.returncode, red.stderr)
    assert "6.6: disproved: a.py::t failed" in red.stdout


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
        (["nonsense"], "'nonsense' is neither in the lock nor a version"),
        (["./bzImage"], "is a kernel of this machine's own"),
        (["every"], "'every' is told by the sources alone, and here none is asked"),
        (["6.12.9*"], "'6.12.9*' is told by the sources alone, and here none is asked"),
        (["all"], "'all' means the kernels of the table, and it names none"),
    ],
)
def test_plan_refuses_what_no_matrix_can_have(names: list[str], sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        planned(names)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("names", "table", "found"),
    [
        (["6.12 6.1"], [], ["6.12", "6.1"]),
        (["6.1", " 6.12 newest "], [], ["6.1", "6.12", "newest"]),
        (["6.1[08]", "6.6"], [], ["6.10", "6.18", "6.6"]),
        (["all", "6.1"], ["6.1?", "6.6"], ["6.10", "6.12", "6.18", "6.6", "6.1"]),
        ([], ["6.6*", "6.1"], ["6.6", "6.1"]),
    ],
)
def test_names_in_a_plan_are_spelled_as_for_a_run(
    names: list[str], table: list[str], found: list[str]
) -> None:
    assert found == [row.name for row in planned(names, table=table)]


def test_kernel_named_twice_is_planned_once() -> None:
    """As a run has it once, with the same sentence."""
    notes: list[str] = []
    rows = planned(["6.12", "7.3", "6.12", "newest"], notes=notes)
    assert ["6.12", "7.3"] == [row.name for row in rows]
    [note] = notes
    assert f"7.3 and newest are one kernel, {rows[1].package}, and it is planned once" == note

    done = lab("plan", "--kernel", "7.3 newest")
    assert (0, f"lab: {note}\n") == (done.returncode, done.stderr)
    assert ["7.3"] == [one["name"] for one in json.loads(done.stdout)["legs"]]


def test_plan_says_of_its_words_what_a_run_says() -> None:
    """What leaves no test out is in neither, so that it makes no run red."""
    words = ["tests/a.py", "-x", "--tb", "short", "-n", "2", "--deselect", "a.py::t", "-k"]

    done = lab("plan", "--kernel", "6.12", "--narrowed", *words, "one or two")
    wrong = lab("plan", "--kernel", "6.12", "--narrowed", *words)

    assert 0 == done.returncode, done.stderr
    expected = ["-k", "one or two", "--deselect=a.py::t", "tests/a.py"]
    assert expected == json.loads(done.stdout)["narrowed"]
    assert (2, "") == (wrong.returncode, wrong.stdout)
    assert (
        f"lab: --narrowed {' '.join(words)}: argument -k: expected one argument\n" == wrong.stderr
    )


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
        '{"version": 1, "legs": [{"name": "6.12", "locked": true}]}',
        '{"version": 1, "legs": [{"name": "6.12", "series": 6.12}]}',
        f'{{"version": 1, "narrowed": "-k", "legs": [{leg}]}}',
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
