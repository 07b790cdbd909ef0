# SPDX-License-Identifier: MIT
"""Completions that cannot be true, posted into a live ring by IORING_OP_MSG_RING.

The kernel puts result, user data and, from 6.3 on, flags of the sender's choice into another ring's
completion queue.  What is forged is never the terminal completion of an operation in flight:
nothing could tell that from the real one.  Nor does it bring back a buffer that the kernel
has: that would be provided twice.
"""

from __future__ import annotations

import itertools
import random

import pytest

from ioxide._probe.rawring import RawRing
from ioxide._ring import lib
from tests.kernel_gated.modes import MODES, Changes
from tests.smoke.test_forged import ACCEPT, BUFFER, RECV, SEND
from tests.support import connect, echo, read_exactly, serve, until

pytestmark = [pytest.mark.kernel_gated, pytest.mark.needs("MSG_RING_CQE_FLAGS")]

KINDS = (0, ACCEPT, RECV, SEND, 7, 100, 255)
# The listener has generation 1 and slot 0, the connection generation 2 and slot 0.
PLACES = ((0, 0), (3, 0), (0xFFFFFF, 0), (1, 63), (2, 1), (2, 2**32 - 1), (9, 4096))
RESULTS = (-(2**31), -125, -105, -104, -22, -14, -1, 0, 2**31 - 1)
FLAGS = (0, BUFFER | 63 << 16, BUFFER | 64 << 16, BUFFER | 65535 << 16, 1234 << 16)
"""Of the low bits only F_BUFFER: 7.3 refuses to pass on others."""


def _forgeries() -> list[tuple[int, int, int]]:
    draw = random.Random(6)
    every = [
        (kind << 56 | generation << 32 | slot, res, flags)
        for kind, (generation, slot), res, flags in itertools.product(KINDS, PLACES, RESULTS, FLAGS)
        # A stale receive brings its buffer back: that of a length is one the kernel gave up.
        if not (kind == RECV and res > 0 and flags & BUFFER and flags >> 16 < 64)
    ]
    return draw.sample(every, 400)


@pytest.mark.parametrize("mode", MODES)
def test_messages_from_another_ring_harm_nobody(mode: Changes) -> None:
    """Four hundred forged completions are each counted, and the connection there goes on."""
    with (
        serve(echo, **mode) as server,
        connect(server) as client,
        RawRing(64) as sender,
    ):
        client.sendall(b"before")
        assert b"before" == read_exactly(client, 6)

        def counted() -> int:
            stats = server.stats()
            return stats.stale_cqes + stats.unknown_cqes

        before, posted = counted(), 0
        # -EFAULT is counted as what it would be if it were true: `serve` asserts there is none.
        forgeries = [entry for entry in _forgeries() if entry[1] != -14]
        for number, (user_data, res, flags) in enumerate(forgeries):
            sender.push(
                lib.IOX_PROBE_OP_MSG_RING,
                fd=server.reactors[0].driver.ring_fd,
                len=res & 0xFFFFFFFF,
                off=user_data,
                op_flags=int(lib.IOX_PROBE_MSG_RING_FLAGS_PASS),
                file_index=flags,
            )
            told = sender.collect(1)
            posted += [0] == [completion.res for completion in told]
            if number % 40 == 0:
                client.sendall(b"among them")
                assert b"among them" == read_exactly(client, 10)
        assert posted >= len(forgeries) * 3 // 4  # what a kernel refuses to pass on proves nothing
        until(lambda: counted() - before == posted, f"{posted} forgeries counted")
        client.sendall(b"after")
        assert b"after" == read_exactly(client, 5)
        with connect(server) as other:
            other.sendall(b"others too")
            assert b"others too" == read_exactly(other, 10)
        assert 2 == server.stats().accepts
