# SPDX-License-Identifier: MIT
"""Scenarios of connections for hypothesis to make and to shrink."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from tests.differential.scenario import (
    APIS,
    IN_CALLBACKS,
    LOOP_STEPS,
    ONLY_IN_CALLBACKS,
    PEER_STEPS,
    Scenario,
    Step,
)

SIZES = (1, 7, 300, 5000, 40_000)
_MUCH = 200_000
_RECORD = 16_384
"""Bytes that TLS sends at once."""
# They take over a second, or need what only some scenarios have.
_LEFT_OUT = {
    *("short", "close-listener", "another-reset", "number", "close-lent", "read", "cancel"),
    "waiting",  # while nothing is paused it is a matter of when, not of what
}
_ORDINARY = tuple(op for op in (*LOOP_STEPS, *PEER_STEPS) if op not in _LEFT_OUT | {"drain"})
_OF_A_STREAM = ("read", "cancel", "drain")
_OF_A_LENT = ("close-lent", "number")
_OF_A_LISTENER = ("another-reset", "number")

_sizes = st.sampled_from(SIZES)


def _step(op: str, on: int, n: int, at_once: bool) -> Step:
    counted = op in ("write", "writelines", "thread-write", "writelines-wrong", "send", "read")
    n = min(n, 20) if op == "trickle" else n if counted else 0
    return Step(op, on, n, at_once)


def _steps(
    ops: tuple[str, ...], connections: int, most: int
) -> st.SearchStrategy[tuple[Step, ...]]:
    one = st.builds(
        _step,
        st.sampled_from(ops),
        st.integers(0, connections - 1),
        _sizes,
        st.booleans(),
    )
    return st.lists(one, max_size=most).map(_in_order)


def _in_order(steps: list[Step]) -> tuple[Step, ...]:
    """Only the program's own steps share a callback.

    What the kernel has of a write() when the peer acts in the middle of the same callback is a
    matter of when, not of what.
    """
    ours = [step.op in LOOP_STEPS for step in steps]
    return tuple(
        replace(step, at_once=step.at_once and all(ours[number : number + 2]))
        for number, step in enumerate(steps)
    )


def _in_callback(way: str) -> st.SearchStrategy[tuple[Step, ...]]:
    words = (*IN_CALLBACKS, *ONLY_IN_CALLBACKS)
    ops = tuple(op for op in words if way == "sock" or op not in _OF_A_LENT)
    one = st.builds(lambda op, n: _step(op, 0, n, False), st.sampled_from(ops), _sizes)
    return st.lists(one, max_size=2).map(tuple)


_elsewhere = st.one_of(
    st.text("ht", min_size=3, max_size=6).map(lambda way: Scenario(kind="threads", way=way)),
    st.sampled_from(("run", "made")).map(lambda way: Scenario(kind="fork", way=way)),
)
"""Loops that change threads, or run in a forked child."""


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """Any scenario that ends within a second or so: of one or two connections, or of a loop."""
    if draw(st.integers(0, 7)) == 3:
        return draw(_elsewhere)
    way = draw(st.sampled_from(("accept", "accept-sock", "connect", "sock", "accepted")))
    api = draw(st.sampled_from(APIS))
    ops = _ORDINARY
    ops += _OF_A_STREAM if api == "streams" else ()
    ops += _OF_A_LENT if way in ("sock", "accepted") else ()
    ops += _OF_A_LISTENER if way == "accept" else ()
    ops += ("close-listener",) if way == "accept-sock" else ()
    connections = draw(st.integers(1, 2))
    steps = draw(_steps(ops, connections, 8))
    if draw(st.integers(0, 9)) == 9:
        steps += (Step("write", 0, _MUCH),)
    data = draw(_in_callback(way))
    eof = draw(_in_callback(way)) if draw(st.integers(0, 2)) == 2 else ()
    tls = draw(st.integers(0, 4)) == 4
    if any(step.op in ("close", "abort", "pause", *ONLY_IN_CALLBACKS) for step in data):
        # How many of single bytes, or of TLS's records, come before the first data_received() ends
        # the connection, or has it read no more, is a matter of when.
        most = _RECORD if tls else _MUCH
        steps = tuple(
            replace(s, op="send", n=min(s.n, most)) if s.op in ("send", "trickle") else s
            for s in steps
        )
    made = draw(_in_callback(way))
    if tls:
        # asyncio's own server leaves a transport behind that raises AttributeError by chance.
        made = tuple(step for step in made if step.op not in ONLY_IN_CALLBACKS)
    return Scenario(
        way=way,
        api=api,
        tls=tls,
        connections=connections,
        keep_open=draw(st.booleans()),
        made=made,
        data=data,
        eof=eof,
        lost=draw(_in_callback(way)),
        steps=steps,
        close=draw(st.integers(0, 4)) != 4,
    )
