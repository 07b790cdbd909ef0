# SPDX-License-Identifier: MIT
"""A start on a kernel that spoils what is asked for, and every way that starts, byte for byte."""

from __future__ import annotations

import random

import pytest

import ioxide
from ioxide._driver import soundness
from ioxide._driver.driver import Driver
from ioxide.errors import UnsupportedError
from tests.kernel_gated.ways import INC, WAYS, Way
from tests.support import SMALL, Whole, connect, echo, read_to_end, sending, serve

pytestmark = pytest.mark.kernel_gated

SMALL_SIZE, SIZE = 4 << 20, 100 << 20
CHUNK = 61_001


@pytest.mark.needs("BUNDLE")
def test_start_is_refused_where_bundles_are_spoiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver raises before anything listens; the ring is closed again."""
    monkeypatch.setattr(soundness, "_results", {})
    monkeypatch.setitem(soundness.EXPERIMENTS, "recv_bundle", lambda: "forged")
    with pytest.raises(UnsupportedError, match=r"recv_bundle=True .*IOX-ERR-005.*Leave it out"):
        Driver(SMALL.replace(recv_bundle=True))


@pytest.mark.needs("INC")
def test_start_is_refused_where_incremental_buffers_are_spoiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same for buffers of a connection's own."""
    monkeypatch.setattr(soundness, "_results", {})
    monkeypatch.setitem(soundness.EXPERIMENTS, "incremental", lambda: "forged")
    with pytest.raises(UnsupportedError, match=r"incremental .*IOX-ERR-006.*Leave it out"):
        Driver(SMALL.replace(**INC.changes))


@pytest.mark.parametrize("way", [pytest.param(Way({}), id="shared"), *WAYS])
@pytest.mark.parametrize(
    "size",
    [pytest.param(SMALL_SIZE, id="4MiB"), pytest.param(SIZE, id="100MiB", marks=pytest.mark.slow)],
)
def test_exchange_is_right_byte_for_byte(way: Way, size: int) -> None:
    """What an echo sends back is what was sent, in pieces that fit no buffer, in every way."""
    sent = random.Random(size).randbytes(size)
    pieces = [sent[at : at + CHUNK] for at in range(0, size, CHUNK)]
    with serve(echo, **way.changes) as server, connect(server) as client:
        with sending(client, pieces):
            assert Whole(sent) == Whole(read_to_end(client))
        stats: ioxide.Counters = server.stats()
        assert (size, size) == (stats.bytes_received, stats.bytes_sent)
