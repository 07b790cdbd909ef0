# SPDX-License-Identifier: MIT
"""Hostile guests, by name and generated, before the real host side: no hole in the lab."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.lab.fuzz.named import GUESTS, scenario
from tests.lab.fuzz.scenario import Scenario, parse
from tests.lab.fuzz.search import Seen, explore
from tests.lab.fuzz.trial import Stage, stage
from tests.lab.suite_support import REPOSITORY

pytestmark = pytest.mark.lab

EXAMPLES = 200


@pytest.fixture(scope="module")
def where() -> Iterator[Stage]:
    """One stage for all of them."""
    with stage() as made:
        yield made


@pytest.mark.parametrize("guests", [1, 2])
def test_honest_guest_is_believed(where: Stage, guests: int) -> None:
    """With nothing wrong a run is 0: what is refused is refused for a reason."""
    ran = where.run(Scenario(("passed", "skipped", "passed", "passed"), guests, ()))

    assert [] == ran.wrong, "\n".join(ran.wrong)
    assert 0 == ran.code


@pytest.mark.parametrize("name", GUESTS)
def test_hostile_guest(where: Stage, name: str) -> None:
    """Each has the exit code, the verdicts and the words that the table gives it."""
    wanted = GUESTS[name]

    ran = where.run(scenario(name))

    assert [] == ran.wrong, "\n".join(ran.wrong)
    assert wanted.code == ran.code, ran.output
    assert ran.results is not None
    found = ran.results["verdicts"].values()
    assert wanted.verdicts == tuple(record["verdict"] for record in found), ran.output
    assert wanted.words in " ".join((ran.output.splitlines()[-1], *(r["why"] for r in found)))


def test_line_of_a_scenario_is_the_scenario() -> None:
    """What a search prints can be tried again."""
    for name in GUESTS:
        assert scenario(name) == parse(scenario(name).line())


def test_generated_guests_find_no_hole(where: Stage) -> None:
    """The same scenarios each time; `make fuzz` goes on with others."""
    seen = Seen()

    found = explore(where, seed=11, examples=EXAMPLES, until=time.monotonic() + 100, seen=seen)

    assert found is None, str(found)
    assert seen.runs >= 20, "too few scenarios ran to say so"


def test_page_names_each_hostile_guest() -> None:
    """The page has a line for each, as the table says, and the other tests that it names exist."""
    page = (REPOSITORY / "docs/hostile-guests.md").read_text()

    for name, guest in GUESTS.items():
        test = f"`tests/lab/test_fuzz.py::test_hostile_guest[{name}]`"
        line = f"| {name} | {guest.what} | {', '.join(guest.verdicts)} | {guest.code} | {test} |"
        assert line in page.splitlines()
    named = re.findall(r"`(tests/\S+\.py)::(\w+)(\[[^]]*\])?`", page)
    assert len(named) >= 20 + 5
    for path, function, _ in named:
        assert f"\ndef {function}(" in (REPOSITORY / path).read_text()
