# SPDX-License-Identifier: MIT
"""What the reproducers of bytes out of order see, shown with memory as a bad kernel leaves it.

No release that the lab's sources still offer shows these errata, so that the reproducers pass
everywhere; here it is shown that they would not.
"""

from __future__ import annotations

import pytest

from ioxide._errata.streams import incremental_disorder, plain_disorder
from ioxide._probe.rawring import Completion
from tests.kernel_gated.rawtools import pattern

pytestmark = pytest.mark.lab

SIZE, ENTRIES = 1024, 8
BUFFER, MORE, SHIFT = 1 << 0, 1 << 1, 16


class Memory:
    """Buffers a test writes into."""

    size, entries = SIZE, ENTRIES

    def __init__(self) -> None:
        self.data = bytearray(SIZE * ENTRIES)

    def put(self, at: int, data: bytes) -> None:
        """Write `data` at a place counted from the first buffer."""
        self.data[at : at + len(data)] = data

    def read(self, bid: int, length: int, *, offset: int = 0) -> bytes:
        """As `Provided.read`."""
        start = bid * SIZE + offset
        return bytes(self.data[start : start + length])


def _completion(res: int, bid: int) -> Completion:
    return Completion(0, res, BUFFER | MORE | bid << SHIFT)


STREAM = pattern(2200)


def test_good_plain_stream() -> None:
    """Two receives, the first short: the second begins in a fresh buffer, and all is in order."""
    memory = Memory()
    memory.put(0, STREAM[:1500])
    memory.put(2 * SIZE, STREAM[1500:])
    assert plain_disorder(STREAM, [_completion(1500, 0), _completion(700, 2)], memory) is None


def test_gap_in_a_bundle() -> None:
    """IOX-ERR-005: a bundle goes on in the next buffer although the one before it was not full."""
    memory = Memory()
    memory.put(0, STREAM[:1500])
    memory.put(2 * SIZE, STREAM[1500:])
    disorder = plain_disorder(STREAM, [_completion(2200, 0)], memory)
    assert str(disorder) == (
        "after 0 bytes, res=2200 bid=0 MORE: 1500 bytes of it are in place, the next are not: "
        "they stand 548 bytes further on"
    )


def test_plain_buffers_out_of_order() -> None:
    """A completion that names another buffer than the next one is a disorder."""
    memory = Memory()
    memory.put(0, STREAM[:1500])
    disorder = plain_disorder(STREAM, [_completion(1500, 0), _completion(700, 3)], memory)
    assert disorder is not None
    assert (1500, "buffer 2 was next") == (disorder.at, disorder.how)


def test_good_incremental_stream() -> None:
    """Bytes one behind the other are in order, and completions of nothing do not count."""
    memory = Memory()
    memory.put(0, STREAM)
    found = [_completion(1500, 0), Completion(0, -125, 0), _completion(700, 1)]
    assert incremental_disorder(STREAM, found, memory) is None


def test_incremental_buffer_that_was_consumed_too_far() -> None:
    """IOX-ERR-006: the kernel took more of the buffers than it had filled."""
    memory = Memory()
    memory.put(0, STREAM[:1500])
    memory.put(3000, STREAM[1500:])
    found = [_completion(1500, 0), _completion(700, 2)]
    disorder = incremental_disorder(STREAM, found, memory)
    assert disorder is not None
    assert (1500, "buffer 1 was next, at 476") == (disorder.at, disorder.how)


def test_incremental_bytes_in_the_wrong_place() -> None:
    """The right buffer with the bytes further on in it is a disorder, too."""
    memory = Memory()
    memory.put(0, STREAM[:1500])
    memory.put(1600, STREAM[1500:])
    found = [_completion(1500, 0), _completion(700, 1)]
    disorder = incremental_disorder(STREAM, found, memory)
    assert disorder is not None
    assert "0 bytes of it are in place" in disorder.how
    assert "they stand 100 bytes further on" in disorder.how
