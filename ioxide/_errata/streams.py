# SPDX-License-Identifier: MIT
"""Where the bytes of a bundled stream have to stand, and whether they do: no kernel in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ioxide._probe.rawring import Completion


class Memory(Protocol):
    """Buffers that lie one behind the other, as `Provided` has them."""

    entries: int
    size: int

    def read(self, bid: int, length: int, *, offset: int = 0) -> bytes:
        """`length` bytes from `offset` of buffer `bid` on."""


@dataclass(frozen=True, slots=True)
class Disorder:
    """The first place at which a stream is not as it was sent."""

    at: int
    """Bytes of the stream before it."""
    completion: Completion
    how: str

    def __str__(self) -> str:
        return f"after {self.at} bytes, {self.completion.describe()}: {self.how}"


def plain_disorder(stream: bytes, found: Sequence[Completion], memory: Memory) -> Disorder | None:
    """Where plain buffers (each completion begins a fresh one) do not hold `stream`; None if all is
    in order.  Each buffer of a bundle but the last is full."""
    at, bid = 0, 0
    for completion in found:
        if completion.res <= 0:
            continue
        if completion.buffer_id != bid:
            return Disorder(at, completion, f"buffer {bid} was next")
        if memory.read(bid, completion.res) != stream[at : at + completion.res]:
            return Disorder(at, completion, _first_difference(stream, at, bid, 0, memory))
        at += completion.res
        bid += -(-completion.res // memory.size)
    return None


def incremental_disorder(
    stream: bytes, found: Sequence[Completion], memory: Memory
) -> Disorder | None:
    """Where incremental buffers (bytes stand one behind the other) do not hold `stream`."""
    at = 0
    for completion in found:
        if completion.res <= 0:
            continue
        bid, offset = divmod(at, memory.size)
        if completion.buffer_id != bid:
            return Disorder(at, completion, f"buffer {bid} was next, at {offset}")
        if memory.read(bid, completion.res, offset=offset) != stream[at : at + completion.res]:
            return Disorder(at, completion, _first_difference(stream, at, bid, offset, memory))
        at += completion.res
    return None


def _first_difference(stream: bytes, at: int, bid: int, offset: int, memory: Memory) -> str:
    held = memory.read(bid, len(stream) - at, offset=offset)
    good = next((i for i, (a, b) in enumerate(zip(held, stream[at:], strict=False)) if a != b), 0)
    rest = stream[at + good : at + good + 16]
    everywhere = memory.read(0, memory.entries * memory.size)
    place = everywhere.find(rest) if len(rest) == 16 else -1
    where = (
        f"they stand {place - (bid * memory.size + offset + good)} bytes further on"
        if place >= 0
        else "they stand nowhere"
    )
    return f"{good} bytes of it are in place, the next are not: {where}"
