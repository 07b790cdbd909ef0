# SPDX-License-Identifier: MIT
"""The gate's counts on a real server, in short; `make gate` does all of it."""

from __future__ import annotations

import pytest

from bench import gate
from bench.counts import Program, count, instructions, system_calls

pytestmark = pytest.mark.lab


def _broken(name: str) -> list[str]:
    # Inline alone: with the context off nothing runs what a mutant posts, and it would hang.
    inline = count(gate.MODES["inline"], slices=3)
    rules = gate.counted_rules(inline, inline, inline)
    return [str(rule) for rule in rules if not rule.holds and name in rule.says]


def test_inline_makes_no_handle() -> None:
    """A plaintext request takes no asyncio handle: the gate would say so."""
    assert [] == _broken("asyncio handles")


def test_inline_makes_no_post() -> None:
    """A plaintext request takes no post: the gate would say so."""
    assert [] == _broken("posts per request")


def test_a_request_takes_few_system_calls() -> None:
    """strace sees at most one call for twenty requests."""
    assert gate.MAX_SYSTEM_CALLS >= system_calls(Program(), limit=gate.MAX_SYSTEM_CALLS)


@pytest.mark.slow
def test_instructions_are_counted() -> None:
    """callgrind's count of a request is in the order of what was measured, and not nothing."""
    assert 3_000 < instructions(Program(), slices=3).low < 20_000


@pytest.mark.parametrize("style", gate.ALONE)
def test_a_lone_request_takes_one_system_call(style: str) -> None:
    """strace sees neither more nor none: with one connection each request is a tick."""
    limit = gate.MAX_SYSTEM_CALLS_ALONE
    assert 0.9 <= system_calls(Program(style=style, connections=1), limit=limit) <= limit


@pytest.mark.slow
@pytest.mark.parametrize("style", gate.ALONE)
def test_instructions_of_a_lone_request_are_counted(style: str) -> None:
    """Hundreds at least, and no more than the gate allows the dearest Python."""
    cost = instructions(Program(style=style, connections=1), slices=3).low
    assert 3_000 < cost < gate.OTHER_INSTRUCTIONS_ALONE
