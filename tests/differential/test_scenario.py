# SPDX-License-Identifier: MIT
"""A line that is no scenario ends in one sentence, and never in a run that proves nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings

from tests.differential.__main__ import main
from tests.differential.named import NAMED
from tests.differential.scenario import Scenario, ScenarioError, parse
from tests.differential.strategy import scenarios


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("nonsense", "is not JSON"),
        ("[]", "is no object"),
        ('{"stepps":[]}', "stepps"),
        ('{"kind":"spoon"}', "kind 'spoon' is none of"),
        ('{"kind":"workers","way":"lazy"}', "way 'lazy' is none of"),
        ('{"kind":"fork"}', "way 'accept' is none of"),
        ('{"kind":"threads","way":"hx"}', "way 'hx' of threads"),
        ('{"way":"free"}', "way 'free' is none of"),
        ('{"api":"sockets"}', "api 'sockets' is none of"),
        ('{"tls":1}', "tls 1 must be bool"),
        ('{"connections":"2"}', "connections '2' must be int"),
        ('{"connections":-1}', "connections -1"),
        ('{"steps":5}', "steps 5 must be a list"),
        ('{"steps":[["jump"]]}', "['jump'] in 'steps' is no step"),
        ('{"steps":["write"]}', "'write' in 'steps' is no step"),
        ('{"steps":[["write",0,"9"]]}', "behind the word are counts"),
        ('{"steps":[["write",-1,9]]}', "behind the word are counts"),
        ('{"data":[["send",0,9]]}', "'send' cannot be in 'data'"),
        ('{"steps":[["raise"]]}', "'raise' cannot be in 'steps'"),
    ],
)
def test_what_is_no_scenario_is_named(
    line: str, named: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command says what is wrong on one line, and exits with 2."""
    with pytest.raises(ScenarioError) as caught:
        parse(line)
    assert named in str(caught.value)

    monkeypatch.setattr("sys.argv", ["differential", line])
    assert 2 == main()
    assert [str(caught.value)] == capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("minutes", ["0", "-1", "nan"])
def test_a_search_needs_time(minutes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of no time is a mistake of usage."""
    monkeypatch.setattr("sys.argv", ["differential", "--minutes", minutes])

    with pytest.raises(SystemExit) as caught:
        main()

    assert 2 == caught.value.code


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(scenarios())
def test_a_scenario_that_is_made_is_one(scenario: Scenario) -> None:
    """The line that a search prints gives the same scenario again."""
    assert scenario == parse(scenario.line())


def test_named_lines_are_whole() -> None:
    """Nothing of a named scenario gets lost on its way to the workers."""
    for scenario in NAMED.values():
        assert scenario == parse(scenario.line())
    assert {} == json.loads(Scenario().line())
