# SPDX-License-Identifier: MIT
"""``python -m bench gate``: what a plaintext request may cost, at 64 connections and at one.

Counts, no times: a busy machine gets the same answer.  Status 0 when every rule holds, 1 when one
does not, 3 when a figure could not be had.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.counts import Counts, Instructions, Program, count, instructions, system_calls
from bench.wrk import compare

MAX_SYSTEM_CALLS = 0.05
SAME = 0.02
"""How far apart on and off may be."""
MORE_RUNS = 3
"""How often what breaks a rule by its cost is measured again: noise only adds."""
SAVED = 0.20
"""What inline has to save of posted's instructions."""
MAX_INSTRUCTIONS = {(3, 11): 7_000}
"""User instructions of a request; 5,923 were measured with CPython 3.11.7 (docs/affinity.md)."""
OTHER_INSTRUCTIONS = 12_000
"""For any other Python, whose interpreter costs something else."""

ALONE = ("handler", "protocol", "streams")
"""What is counted with one connection too: a `Server`'s handler, asyncio's protocol and streams."""
MAX_SYSTEM_CALLS_ALONE = 1.1
"""One enter, which sends the answer and waits for the next request."""
MAX_INSTRUCTIONS_ALONE = {(3, 11): {"handler": 8_800, "protocol": 4_800, "streams": 25_500}}
"""User instructions; 8,243, 4,668 and 24,137 were measured with CPython 3.11.7 (affinity.md)."""
OTHER_INSTRUCTIONS_ALONE = 30_000

MAX_RECORDING = 0.03
"""What the flight recorder may add, as a share."""

MODES: dict[str, Mapping[str, object]] = {
    "inline": {},
    "context off": {"context": False},
    "posted": {"continuation_mode": "posted"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that has to hold, and what was measured."""

    says: str
    measured: str
    holds: bool

    def __str__(self) -> str:
        return f"{'holds ' if self.holds else 'BROKEN'} {self.says}: {self.measured}"


def apart(one: float, other: float) -> float:
    """How far two figures are apart, as a share of the smaller one."""
    low, high = sorted((one, other))
    return (high - low) / low if low > 0 else float(high > 0)


def at_most(what: str, value: float, limit: float) -> Rule:
    measured = f"{value:.4g}" if value < 1000 else f"{value:.0f}"
    return Rule(says=f"{what} at most {limit:g}", measured=measured, holds=value <= limit)


def same(what: str, on: float, off: float) -> Rule:
    """Context on and off cost the same."""
    share = apart(on, off)
    return Rule(
        says=f"{what} with the context on and off within {SAME:.0%}",
        measured=f"{on:.6g} and {off:.6g}, {share:.2%} apart",
        holds=share <= SAME,
    )


def limit_of(version: tuple[int, int], *, alone: str | None = None) -> int:
    """Instructions that a request may take on this Python; `alone`: what serves one connection."""
    if alone is not None:
        return MAX_INSTRUCTIONS_ALONE.get(version, {}).get(alone, OTHER_INSTRUCTIONS_ALONE)
    return MAX_INSTRUCTIONS.get(version, OTHER_INSTRUCTIONS)


def counted_rules(inline: Counts, off: Counts, posted: Counts) -> Iterable[Rule]:
    """What the server's own counters have to say."""
    yield at_most("posts per request", inline.posts, 0)
    yield at_most("asyncio handles per request", inline.handles, 0)
    yield at_most("wake writes per request", inline.wake_writes, 0)
    yield same("enters per request", inline.enters, off.enters)
    # Or the comparison with it below would compare inline with itself.
    yield Rule(
        says="mode posted posts each resumption",
        measured=f"{posted.posts:.4g} posts per request",
        holds=0.99 <= posted.posts <= 1.01,
    )


def instruction_rules(
    inline: Instructions, off: Instructions, posted: Instructions, *, version: tuple[int, int]
) -> Iterable[Rule]:
    """What callgrind has to say."""
    yield at_most("user instructions per request", inline.low, limit_of(version))
    yield same("user instructions per request", inline.low, off.low)
    saved = 1 - inline.low / posted.low
    yield Rule(
        says=f"inline takes at least {SAVED:.0%} fewer instructions than posted",
        measured=f"{inline.low:.0f} and {posted.low:.0f}, {saved:.1%} fewer",
        holds=saved >= SAVED,
    )


def alone_rules(
    calls: Mapping[str, float], costs: Mapping[str, Instructions], *, version: tuple[int, int]
) -> Iterable[Rule]:
    """What a request costs when it is the only one: each takes a tick of its own."""
    for style in ALONE:
        what = f"per request of one connection, {style}"
        yield at_most(f"system calls {what},", calls[style], MAX_SYSTEM_CALLS_ALONE)
        limit = limit_of(version, alone=style)
        yield at_most(f"user instructions {what},", costs[style].low, limit)


def record_rule(without: Instructions, recording: Instructions) -> Rule:
    """What the flight recorder (IOXIDE_RECORD) adds when it is on."""
    more = recording.low / without.low - 1
    return Rule(
        says=f"recording adds at most {MAX_RECORDING:.0%} to the user instructions per request",
        measured=f"{without.low:.0f} and {recording.low:.0f}, {more:+.2%}",
        holds=more <= MAX_RECORDING,
    )


def run() -> int:
    """Measure, print, judge."""
    version = sys.version_info[:2]
    counts = {name: count(settings) for name, settings in MODES.items()}
    programs = {name: Program(settings=settings) for name, settings in MODES.items()}
    calls = {
        name: system_calls(program, limit=MAX_SYSTEM_CALLS) for name, program in programs.items()
    }
    costs = {name: instructions(program) for name, program in programs.items()}
    for _ in range(MORE_RUNS):
        low, high = sorted(("inline", "context off"), key=lambda name: costs[name].low)
        if apart(costs[low].low, costs[high].low) <= SAME:
            break
        # A process may be dearer in all its slices, by where its memory lies: 3 % was seen.
        costs[high] = min(costs[high], instructions(programs[high]), key=lambda cost: cost.low)
    recorded = Program(environment={"IOXIDE_RECORD": "1"})
    recording = instructions(recorded)
    for _ in range(MORE_RUNS):
        if record_rule(costs["inline"], recording).holds:
            break
        recording = min(recording, instructions(recorded), key=lambda cost: cost.low)
    alone = {style: Program(style=style, connections=1) for style in ALONE}
    calls_alone = {
        style: system_calls(program, limit=MAX_SYSTEM_CALLS_ALONE)
        for style, program in alone.items()
    }
    costs_alone = {style: instructions(program) for style, program in alone.items()}
    for style, program in alone.items():
        for _ in range(MORE_RUNS):
            if costs_alone[style].low <= limit_of(version, alone=style):
                break
            again = instructions(program)
            costs_alone[style] = min(costs_alone[style], again, key=lambda cost: cost.low)
    print(f"plaintext, 64 connections, Python {sys.version.split()[0]}; of one request:\n")
    print(
        f"{'':12} instructions [noise]   system calls  enters   posts  handles  completions/enter"
    )
    for name, each in counts.items():
        cost = costs[name]
        noise = f"{cost.low:.0f} [+{cost.high / cost.low - 1:.2%}]"
        print(
            f"{name:12} {noise:22} {calls[name]:12.4f}  {each.enters:.5f} {each.posts:6.2f}"
            f" {each.handles:8.2f} {each.completions_per_enter:10.1f}"
        )
    print("\none connection; of one request:\n")
    for style in ALONE:
        cost = costs_alone[style]
        noise = f"{cost.low:.0f} [+{cost.high / cost.low - 1:.2%}]"
        print(f"{style:12} {noise:22} {calls_alone[style]:12.4f}")
    rules = [
        *counted_rules(counts["inline"], counts["context off"], counts["posted"]),
        at_most("system calls per request", calls["inline"], MAX_SYSTEM_CALLS),
        *instruction_rules(costs["inline"], costs["context off"], costs["posted"], version=version),
        *alone_rules(calls_alone, costs_alone, version=version),
        record_rule(costs["inline"], recording),
    ]
    print()
    for rule in rules:
        print(rule)
    print(f"\n{compare()}")
    broken = [rule for rule in rules if not rule.holds]
    print(f"\ngate: {len(rules) - len(broken)} of {len(rules)} rules hold", flush=True)
    return 1 if broken else 0
