# SPDX-License-Identifier: MIT
"""The bisection over releases: what it finds, what it leaves aside, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lab.errata.cli
import lab.kernels
from lab.cli import main
from lab.errata.bisect import Side, Tried, between, bisect
from lab.errata.trial import Trial, read
from lab.errors import LabError, UsageError
from lab.kernels import Kernel

pytestmark = pytest.mark.lab


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


LINE = [_kernel(f"6.12.{number}") for number in range(40)]


def _attempt(
    bad: Callable[[int], bool], undecided: frozenset[int] = frozenset()
) -> tuple[Callable[[Kernel], Tried], list[str]]:
    tried: list[str] = []

    def attempt(kernel: Kernel) -> Tried:
        tried.append(kernel.upstream)
        number = int(kernel.upstream.rpartition(".")[2])
        if number in undecided:
            return Tried(Side.UNDECIDED, "lost: the guest died")
        return Tried(Side.BAD if bad(number) else Side.GOOD, "")

    return attempt, tried


def test_first_bad_is_found_in_few_steps() -> None:
    """Of forty releases seven or fewer are tried, both ends first."""
    attempt, tried = _attempt(lambda number: number >= 27)
    boundary = bisect(LINE, good=LINE[0], attempt=attempt)
    assert str(boundary) == "last good 6.12.26-1, first bad 6.12.27-1"
    assert ["6.12.0", "6.12.39"] == tried[:2]
    assert len(tried) <= 2 + 6


def test_first_good_is_found_the_same_way() -> None:
    """Where the newer end is the good one, it is the mending that is found."""
    attempt, _ = _attempt(lambda number: number < 5)
    boundary = bisect(LINE, good=LINE[-1], attempt=attempt)
    assert str(boundary) == "last bad 6.12.4-1, first good 6.12.5-1"


@given(
    size=st.integers(2, 40),
    data=st.data(),
    undecided=st.frozensets(st.integers(0, 39)),
    newer_bad=st.booleans(),
)
def test_boundary_is_right_wherever_it_is(
    size: int, data: st.DataObject, undecided: frozenset[int], newer_bad: bool
) -> None:
    """Whatever releases have no verdict: the two named differ, and only such lie between them."""
    change = data.draw(st.integers(1, size - 1))
    undecided = undecided - {0, size - 1}
    attempt, tried = _attempt(lambda number: (number >= change) is newer_bad, undecided)
    line = LINE[:size]
    boundary = bisect(line, good=line[0 if newer_bad else -1], attempt=attempt)
    last, first = line.index(boundary.last), line.index(boundary.first)
    assert last < change <= first
    assert not {last, first} & undecided
    assert set(range(last + 1, first)) <= undecided
    assert line[last + 1 : first] == list(boundary.undecided)
    assert len(tried) == len(set(tried)), "no release is tried twice"


def test_what_is_not_decided_is_told() -> None:
    """Releases without a verdict between the two are named."""
    attempt, _ = _attempt(lambda number: number >= 3, frozenset({2, 3}))
    boundary = bisect(LINE[:6], good=LINE[0], attempt=attempt)
    assert str(boundary) == (
        "last good 6.12.1-1, first bad 6.12.4-1; between them, not decided: 6.12.2-1, 6.12.3-1"
    )


def test_same_verdict_at_both_ends() -> None:
    """There is nothing to be found between two good releases, and nothing more is tried."""
    attempt, tried = _attempt(lambda _: False)
    with pytest.raises(UsageError, match=r"6\.12\.0-1 and 6\.12\.39-1 are both good"):
        bisect(LINE, good=LINE[0], attempt=attempt)
    assert len(tried) == 2


def test_ends_the_other_way_round() -> None:
    """Ends that were exchanged are refused with the way out."""
    attempt, _ = _attempt(lambda number: number < 9)
    with pytest.raises(UsageError, match="exchange --good and --bad"):
        bisect(LINE, good=LINE[0], attempt=attempt)


def test_end_without_a_verdict() -> None:
    """An end on which the guest is lost leaves nothing to go by: not proved."""
    attempt, _ = _attempt(lambda number: number > 3, frozenset({39}))
    with pytest.raises(LabError, match=r"no verdict on 6\.12\.39-1") as caught:
        bisect(LINE, good=LINE[0], attempt=attempt)
    assert caught.value.exit_code == 3


def test_line_has_one_packaging_of_each() -> None:
    """Between two ends each upstream version stands once, in the order of versions, and the ends
    are those that were named."""
    two = [_kernel("6.12.94", "1~bpo12+1"), _kernel("6.12.94"), _kernel("6.12.9"), *LINE[38:]]
    line = between([*two, _kernel("6.18.5")], _kernel("6.18.5"), two[2])
    assert [
        "6.12.9-1",
        "6.12.38-1",
        "6.12.39-1",
        "6.12.94-1",
        "6.18.5-1",
    ] == [kernel.package for kernel in line]
    assert [two[2], two[0]] == between([], two[0], two[2])
    with pytest.raises(UsageError, match=r"both mean 6\.12\.94"):
        between(two, two[0], two[1])


def _leg(verdicts: dict[str, str], package: str = "6.12.1-1") -> dict[str, Any]:
    found = {name: {"verdict": verdict, "why": ""} for name, verdict in verdicts.items()}
    return {"kernel": {"package": package}, "verdicts": found}


@pytest.mark.parametrize(
    ("verdict", "side"),
    [
        ("passed", Side.GOOD),
        ("failed", Side.BAD),
        ("splat", Side.BAD),
        ("xfailed", Side.BAD),
        ("skipped", Side.UNDECIDED),
        ("lost", Side.UNDECIDED),
        ("never ran", Side.UNDECIDED),
    ],
)
def test_side_follows_from_the_verdict(verdict: str, side: Side) -> None:
    """What ran and held is good, what did not is bad, what was never decided is neither."""
    assert side is read(_leg({"a::b": verdict}), "a::b", _kernel("6.12.1")).side


def test_other_kernel_decides_nothing() -> None:
    """A release that came in the place of one that has left its source says nothing about it."""
    tried = read(_leg({"a::b": "passed"}, "6.12.2-1"), "a::b", _kernel("6.12.1"))
    assert tried == Tried(Side.UNDECIDED, "6.12.2-1 was booted instead")


def test_more_than_one_test_is_refused() -> None:
    """A node id that is several tests has no one verdict."""
    with pytest.raises(UsageError, match="a is 2 tests"):
        read(_leg({"a::b": "passed", "a::c": "passed"}), "a", _kernel("6.12.1"))


LAB = """\
import json, pathlib, sys
arguments = dict(zip(sys.argv[1::1], sys.argv[2::1]))
results = next(a for a in sys.argv if a.startswith("--lab-results=")).partition("=")[2]
if sys.argv[-1] == "tests/test_a.py::test_no_guest":
    sys.exit("lab: exit 3 (not proved): the agent said nothing")
assert "--lab-unlisted" in sys.argv
latest = pathlib.Path(results, "latest")
latest.mkdir()
verdicts = {sys.argv[-1]: {"verdict": "failed", "why": "assert 0"}}
leg = {"kernel": {"package": arguments["--kernel"]}, "verdicts": verdicts}
content = {"legs": {"6.12": leg}}
(latest / "results.json").write_text(json.dumps(content))
sys.exit(1)
"""


def test_trial_is_a_run_of_its_own(tmp_path: Path) -> None:
    """A trial runs `lab test` on that very package and takes the side from its results; where
    there are none it is not decided, with the run's last words."""
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab/__init__.py").touch()
    (tmp_path / "lab/__main__.py").write_text(LAB)
    results = tmp_path / "results"
    trial = Trial("tests/test_a.py::test_it", tmp_path, results / "one")
    assert Tried(Side.BAD, "failed: assert 0") == trial(_kernel("6.12.1"))
    trial = Trial("tests/test_a.py::test_no_guest", tmp_path, results / "two")
    last = "lab: exit 3 (not proved): the agent said nothing"
    assert Tried(Side.UNDECIDED, last) == trial(_kernel("6.12.1"))


NODE = "tests/lab/test_errata_bisect.py::test_line_has_one_packaging_of_each"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--good", "6.12.1", "--bad", "9.9", NODE], 2, "unknown kernel '9.9'"),
        (["--good", "6.12.1", "--bad", "6.12.1", NODE], 2, "both mean 6.12.1"),
        (["--good", "6.12.1", "--bad", "6.12.2", "tests/nowhere.py::x"], 2, "no node id"),
        (["--good", "6.12.1", "--bad", "6.12.2", "tests/lab"], 2, "no node id"),
        (["--good", "6.12.1", NODE], 2, "required: --bad"),
    ],
)
def test_request_that_cannot_be_meant(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    sentence: str,
) -> None:
    """`lab bisect` refuses it before anything boots; the last line has the code and the reason."""
    known = {"6.12.1": _kernel("6.12.1"), "6.12.2": _kernel("6.12.2")}

    def resolve(name: str, **_: Any) -> Kernel:
        if name not in known:
            raise UsageError(f"unknown kernel {name!r}")
        return known[name]

    monkeypatch.setattr(lab.kernels, "resolve", resolve)
    monkeypatch.setattr(lab.kernels, "offered", lambda: tuple(known.values()))
    monkeypatch.setattr("lab.cli.signal.signal", lambda *_: None)  # pytest keeps its own
    try:
        got = main(["bisect", *arguments])
    except SystemExit as error:
        got = int(error.code or 0)
    assert code == got
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith(f"lab: exit {code} (usage): ")
    assert sentence in last


def test_kernels_of_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """`every` is what the sources offer, `measured` what is known of it; each kernel comes once,
    oldest first."""
    offered = (_kernel("7.3.4"), _kernel("6.12.107"), _kernel("6.12.9"))
    monkeypatch.setattr(lab.kernels, "offered", lambda: offered)
    monkeypatch.setattr(lab.kernels, "resolve", lambda _name, **_: offered[1])
    assert ["6.12.9", "6.12.107", "7.3.4"] == [
        kernel.upstream for kernel in lab.errata.cli.chosen(["6.12", "every"], lambda _: False)
    ]
    assert ["6.12.9", "6.12.107"] == [
        kernel.upstream
        for kernel in lab.errata.cli.chosen(
            ["6.12", "measured"], lambda kernel: kernel.upstream == "6.12.9"
        )
    ]
