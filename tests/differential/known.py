# SPDX-License-Identifier: MIT
"""The differences that there are, each with its reason. This list is itself a test.

An entry says which scenario shows it (`test_known` runs that, and an entry that it shows no more
is stale), and what it excuses wherever else it is seen. Entries with a `fault` are faults of this
loop that are not yet mended: their scenarios stay in `named` when the entries go.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.differential.pair import Difference, Pair
from tests.differential.scenario import PARTS, Scenario

FLOW = ("pause_writing", "resume_writing")
CUTTING_OFF = {"abort", "raise", "linger", "close-lent", "drop", "end", "reset", "stall"}
"""What may end a connection before all of its bytes are sent."""
TAKEN_AT_ONCE = 65_536
"""Bytes that the kernel takes from one write() on loopback, whatever its buffers have grown to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One difference that is meant, or a fault that is known."""

    id: str
    reason: str
    shows: tuple[str, ...]
    """Names of scenarios each of which shows it."""
    where: str
    """A regular expression for all of `Difference.where`."""
    when: Callable[[Scenario], bool] = lambda _: True
    """In which scenarios it is to be expected."""
    excuses: Callable[[Any, Any], bool] = lambda _asyncio, _ioxide: True
    """Which pairs of values are this difference and no other."""
    fault: str = ""
    """The fault's name in the tracker, for one that is not meant."""

    def covers(self, scenario: Scenario, difference: Difference) -> bool:
        """Whether it is this one."""
        return (
            re.fullmatch(self.where, difference.where) is not None
            and self.when(scenario)
            and self.excuses(difference.asyncio, difference.ioxide)
        )


def _without_flow(callbacks: list[list[Any]]) -> list[list[Any]]:
    return [each for each in callbacks if each[0] not in FLOW]


def _differ_in_flow(one: list[list[Any]], other: list[list[Any]]) -> bool:
    return _without_flow(one) == _without_flow(other)


def _is_resumed(callbacks: list[list[Any]]) -> bool:
    """Whether a protocol that was asked to pause was asked to go on as well."""
    flow = [each for each in callbacks if each[0] in FLOW]
    return not flow or flow[-1][0] == "resume_writing"


def _told_once(callbacks: list[list[Any]]) -> list[list[Any]]:
    """Without the second eof_received() and those after it."""
    ends = [number for number, each in enumerate(callbacks) if each[0] == "eof"]
    return [each for number, each in enumerate(callbacks) if number not in ends[1:]]


def _is_of_a_send(raised: Any) -> bool:
    """Whether it is what a peer's send raises when the other side has ended; by TLS it is an error
    of that, of one class or another."""
    return isinstance(raised, str) and (raised == "BrokenPipeError" or raised.startswith("SSL"))


def _not_opened(raised: Any) -> bool:
    """Whether what was raised tells of a connection that could not be opened."""
    return isinstance(raised, list) and any(
        isinstance(each, list) and each[1:2] == ["open"] for each in raised
    )


def _raise_the_same(one: Any, other: Any) -> bool:
    """Whether two lists of what was raised differ in nothing but what two entries below excuse."""
    excused = (["eof", "OSError ENOTCONN"], ["linger", "OSError EBADF"])
    both = isinstance(one, list) and isinstance(other, list)
    return both and [e for e in one if e[1:] not in excused] == [
        e for e in other if e[1:] not in excused
    ]


def _can_be_unsent(scenario: Scenario) -> bool:
    """Whether more is written than a socket certainly takes at once, or nobody reads."""
    steps = (step for part in PARTS for step in getattr(scenario, part))
    written = sum(step.n for step in steps if "write" in step.op)
    return "stall" in scenario.ops() or written > TAKEN_AT_ONCE


def _lingers_late(scenario: Scenario) -> bool:
    """Whether SO_LINGER is set where the transport is closing already."""
    for part in (scenario.made, scenario.data, scenario.eof, scenario.steps):
        ops = [step.op for step in part]
        closing = min((ops.index(op) for op in ("abort", "close") if op in ops), default=len(ops))
        if "linger" in ops[closing:]:
            return True
    return any(step.op == "linger" for step in scenario.lost)


def _writes_after_the_end(scenario: Scenario) -> bool:
    """Whether more than one write may come in a row, to a peer that has closed."""
    writes = [step for part in PARTS for step in getattr(scenario, part) if "write" in step.op]
    return "end" in scenario.ops() and len(writes) > 1


def _lost_by_a_reset(one: Any, other: Any) -> bool:
    """Whether two lists of callbacks differ in nothing but that only asyncio's tells of a reset; or
    asyncio has fewer sockets, because such a connection has ended."""
    if not isinstance(one, list):
        return bool(one < other)
    resets = ("BrokenPipeError EPIPE", "ConnectionResetError ECONNRESET")
    return [each for each in one if each not in (["lost", reset] for reset in resets)] == [
        each for each in other if each != ["lost", None]
    ]


def _has(*ops: str) -> Callable[[Scenario], bool]:
    return lambda scenario: bool(scenario.ops() & set(ops))


MEANT = (
    Known(
        id="flow-control-before-the-send",
        reason="asyncio's write() tries to send at once, and counts what the kernel did not take. "
        "What one batch of callbacks writes leaves in one SEND here, so that a write beyond the "
        "high-water mark is waited for even if the kernel takes it all.",
        shows=("a large write",),
        where=r"connections\.\d+\.callbacks",
        excuses=lambda one, other: _differ_in_flow(one, other) and _is_resumed(other),
    ),
    Known(
        id="flow-control-of-what-is-cut-off",
        reason="The same; a connection that ends before its bytes are sent is not asked to resume.",
        shows=("a large write, then abort",),
        where=r"connections\.\d+\.callbacks",
        when=lambda s: bool(s.ops() & CUTTING_OFF) or not s.close,
        excuses=lambda one, other: _differ_in_flow(one, other) and not _is_resumed(other),
    ),
    Known(
        id="abort-is-a-reset",
        reason="abort() with bytes that were not sent resets the connection, so that the peer does "
        "not take a stream that was cut off for a whole one; asyncio sends a FIN. How much had "
        "left by then differs as well.",
        shows=("abort with bytes unsent",),
        where=r"connections\.\d+\.peer\.(end|bytes|crc)",
        when=lambda s: bool(s.ops() & {"abort", "drop"} or not s.close) and _can_be_unsent(s),
        excuses=lambda one, other: other == "RST" or isinstance(one, int),
    ),
    Known(
        id="socket-gone-in-connection-lost",
        reason="The core closes a descriptor when the connection's last operation has ended, which "
        "may be before connection_lost(); what get_extra_info() gave raises EBADF from then on, "
        "never earlier than the transport is closing. SO_LINGER that is set there comes too late.",
        shows=("SO_LINGER in connection_lost", "SO_LINGER behind abort() in connection_made"),
        where=r"raised|connections\.\d+\.peer\.(end|send_error)",
        when=_lingers_late,
        excuses=lambda one, other: (
            (one, other) in (("RST", "FIN"), ("BrokenPipeError", None))
            or _raise_the_same(one, other)
        ),
    ),
    Known(
        id="no-reset-from-connection-lost",
        reason="What comes too late throws nothing away: asyncio's reset discards what a peer that "
        "does not read had left in the socket, and here all of it arrives.",
        shows=("SO_LINGER in connection_lost, bytes unsent",),
        where=r"connections\.\d+\.peer\.(bytes|crc)",
        when=lambda s: any(step.op == "linger" for step in s.lost) and _can_be_unsent(s),
    ),
    Known(
        id="write-eof-of-a-reset-connection",
        reason="asyncio's write_eof() calls shutdown(2) at once, and raises its ENOTCONN when the "
        "peer has reset the connection already. Here the half-close is an operation of the ring, "
        "as on uvloop: the reset is told to connection_lost(), in both cases.",
        shows=("write_eof() to a client that has reset",),
        where="raised",
        when=_has("eof"),
        excuses=lambda one, other: _raise_the_same(one, other),
    ),
    Known(
        id="one-send-meets-no-reset",
        reason="asyncio sends each write() at once, so that the second in one callback meets the "
        "reset that the first has brought from a closed peer. Here both leave in one SEND.",
        shows=(
            "two writes in eof_received to a peer that has closed",
            "two writes at once to a peer that has closed",
        ),
        where=r"tcp sockets|connections\.\d+\.callbacks",
        when=_writes_after_the_end,
        excuses=_lost_by_a_reset,
    ),
    Known(
        id="end-of-stream-told-once",
        reason="A transport that its protocol keeps open after the peer's FIN reads the end once "
        "more after pause_reading() and resume_reading() with asyncio, and calls eof_received() "
        "again. asyncio's own documentation has it called once at most; here it is.",
        shows=("a pause after the peer's FIN",),
        where=r"connections\.\d+\.callbacks",
        when=lambda s: s.keep_open and "resume" in s.ops(),
        excuses=lambda one, other: one != other == _told_once(one),
    ),
    Known(
        id="lent-socket-stays-open",
        reason="The core works on a duplicate of a socket that was lent with sock=. When its owner "
        "closes it early the connection goes on until the transport ends, as on uvloop; asyncio's "
        "sends a FIN then, hears nothing more, and fails with EBADF when it writes.",
        shows=(
            "d2: a write after the owner closed the lent socket",
            "the owner closed the lent socket, and the peer sends by TLS",
            "the owner closed the lent socket at once, and the peer sends by TLS",
            "the owner closed the lent socket, and connection_lost is interrupted",
        ),
        where=r"raised|handler|warnings|tcp sockets|interrupts|"
        r"connections\.\d+\.(made|callbacks|lent|peer\.\w+)",
        when=_has("close-lent"),
        excuses=lambda one, other: (
            _is_of_a_send(one) or (other is not None and not _not_opened(other))
        ),
    ),
    Known(
        id="lent-socket-has-a-duplicate",
        reason="The duplicate is one descriptor more for as long as the transport has the socket.",
        shows=("d4: the program ends, its socket was lent",),
        where="tcp sockets",
        when=lambda s: s.way in ("sock", "accepted"),
        excuses=lambda one, other: other > one,
    ),
)

FAULTS: tuple[Known, ...] = ()

KNOWN = (*MEANT, *FAULTS)


def unknown(both: Pair, scenario: Scenario) -> list[Difference]:
    """What differs in each of three runs and no entry covers."""

    def matters(difference: Difference) -> bool:
        return not any(known.covers(scenario, difference) for known in KNOWN)

    return both.differences(scenario, matters)
