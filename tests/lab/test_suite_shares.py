# SPDX-License-Identifier: MIT
"""In which order the tests of a kernel are handed out to its guests."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.facts.records import Record, of_runs
from lab.facts.verdicts import Verdict
from lab.suite.lanes import Lanes, Work
from lab.suite.shares import Shares
from lab.suite.times import KEY, estimated, known, remember
from lab.suite.turn import Turn
from lab.wishes import Wishes
from tests.lab.suite_support import Little

pytestmark = pytest.mark.lab


def plan(names: Sequence[str], seconds: Mapping[str, float], **more: Any) -> Any:
    """As much of a plan as is asked here."""
    how = {"own_wishes": {}, "times": 1, "keep_order": False} | more
    return cast("Any", SimpleNamespace(selected=names, seconds=seconds, **how))


def handed(shares: Shares) -> list[list[Turn]]:
    """All shares."""
    return [list(share) for share in iter(shares.take, ())]


def files(shares: Shares) -> str:
    """The first letter of each share's file."""
    return "".join(share[0].name[0] for share in handed(shares))


NAMES = [f"{file}.py::test[{n}]" for file in "abc" for n in range(10)]
TIMES = {name: {"a": 1.0, "b": 5.0, "c": 3.0}[name[0]] for name in NAMES}


def test_longest_file_comes_first_and_in_one_piece() -> None:
    assert "bbccaa" == files(Shares(plan(NAMES, TIMES), 2))
    # A test of which nothing is known counts as a usual one: here, 3 seconds.
    known = {name: s for name, s in TIMES.items() if name[0] != "c"}
    assert "bbccaa" == files(Shares(plan(NAMES, known), 2))


@pytest.mark.parametrize(
    ("seconds", "lanes", "keep"), [({}, 2, False), (TIMES, 1, False), (TIMES, 2, True)]
)
def test_order_of_the_selection_stays(seconds: Mapping[str, float], lanes: int, keep: bool) -> None:
    """Where nothing is known, where one guest runs all, and where an order was asked for."""
    shares = handed(Shares(plan(NAMES, seconds, keep_order=keep), lanes))
    assert NAMES == [turn.name for share in shares for turn in share]


def test_runs_of_a_selection_come_one_after_the_other() -> None:
    """Those of tests that ask for another guest come together, so that it is booted once."""
    two = Wishes(cpus=2)
    names = ["a.py::1", "a.py::2", "b.py::1"]
    shares = Shares(plan(names, {}, own_wishes={"b.py::1": two}, times=2), 1)
    assert (6, math.inf) == (shares.left(), shares.seconds_left())
    assert [
        [Turn("a.py::1", 1), Turn("a.py::2", 1)],
        [Turn("a.py::1", 2), Turn("a.py::2", 2)],
        [Turn("b.py::1", 1), Turn("b.py::1", 2)],
    ] == handed(shares)
    assert (0, 0.0) == (shares.left(), shares.seconds_left())


def test_what_is_left_is_known() -> None:
    shares = Shares(plan(NAMES, TIMES), 2)
    assert 90.0 == shares.seconds_left()
    shares.take()
    assert (22, 50.0) == (shares.left(), shares.seconds_left())
    assert math.inf == estimated(NAMES, {})
    assert 4.0 == estimated(["a", "new"], {"a": 2.0, "b": 2.0})


def work(names: Sequence[str], seconds: Mapping[str, float]) -> Work:
    """A work that nobody runs."""
    return Work(cast("Any", None), plan(names, seconds))


def test_lanes_begin_where_most_is_to_be_done() -> None:
    """By time where it is known, else by the number of tests; and so does a lane that is done with
    its own."""
    few, many = work(NAMES[:4], dict.fromkeys(NAMES, 100.0)), work(NAMES, dict.fromkeys(NAMES, 1.0))
    lanes = Lanes([few, many], guests=4)
    assert [few, many, few, few] == [lane._first for lane in lanes.lanes]
    lanes = Lanes([work(NAMES[:4], {}), unknown := work(NAMES, {})], guests=3)
    assert unknown is lanes.lanes[2]._first

    few, many = work(NAMES[:4], dict.fromkeys(NAMES, 100.0)), work(NAMES, dict.fromkeys(NAMES, 1.0))
    lanes = Lanes([many, few], guests=2)
    assert few is lanes.another()
    few.take()
    assert lanes.another() is None  # 30 tests of a second are not worth a guest


def test_times_of_the_last_run_decide(little: Little, tmp_path: Path) -> None:
    """Of two guests one begins with the file that took longest: the tests of the others wait for
    that."""
    for name in "ab":
        little.tests(
            f"""
from pathlib import Path
def test_{name}():
    deadline = time.monotonic() + 30
    while not Path({str(tmp_path / "begun")!r}).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
""",
            f"tests/test_{name}.py",
        )
    little.tests(
        f"from pathlib import Path\ndef test_z(): Path({str(tmp_path / 'begun')!r}).touch()\n",
        "tests/test_z.py",
    )
    took = {f"tests/test_{name}.py::test_{name}": s for name, s in (("a", 1), ("b", 2), ("z", 3))}
    little.write(f".pytest_cache/v/{KEY}", json.dumps({"6.12.107": took}))

    ran = little.lab("--lab-guests=2")

    assert ran.code == 0, ran.output
    assert ["test_a", "test_b", "test_z"] == list(ran.verdicts)
    kept = json.loads((little.root / f".pytest_cache/v/{KEY}").read_text())
    assert took.keys() == kept["6.12.107"].keys()
    assert took != kept["6.12.107"]


def test_times_are_kept_where_pytest_has_a_cache() -> None:
    """Of what ran, one run on the average; a whole run forgets what is no more."""
    kept: dict[str, Any] = {KEY: {"6.1": {"old": 2.0, "odd": "x"}, "6.6": []}}
    cache = SimpleNamespace(get=kept.get, set=kept.__setitem__)
    config = cast("Any", SimpleNamespace(cache=cache))
    records = {
        "a": of_runs([Record(Verdict.PASSED, 1.0), Record(Verdict.FAILED, 2.0)]),
        "b": Record(Verdict.NEVER_RAN),
    }
    remember(config, {"6.1": records}, whole=False)
    assert {"6.1": {"old": 2.0, "a": 1.5}} == known(config)
    remember(config, {"6.1": records}, whole=True)
    assert {"6.1": {"a": 1.5}} == known(config)
    none = cast("Any", SimpleNamespace())
    remember(none, {"6.1": records}, whole=True)
    assert {} == known(none)
