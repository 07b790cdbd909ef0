# SPDX-License-Identifier: MIT
"""What is valid, and too much for this machine, is warned of at the start (#102)."""

from __future__ import annotations

import logging
import os

import pytest

import ioxide
from ioxide._server import advice
from tests.support import SMALL, echo

pytestmark = pytest.mark.issue(102)

GIB = 1 << 30


def _advice(config: ioxide.ServerConfig, *, processors: int = 8, memory: int = 8 * GIB) -> str:
    """All that is said of `config` on such a machine."""
    return "\n".join(advice.advice(config, processors=processors, memory=memory))


def test_more_reactors_than_processors_are_warned_of() -> None:
    """Three reactors on two processors are one too many, and on three they are not."""
    config = SMALL.replace(reactors=3)
    said = _advice(config, processors=2)
    assert "reactors=3" in said, "a warning of reactors=3"
    assert "may run on 2 of the processors" in said
    assert "Take reactors=2" in said
    assert "" == _advice(config, processors=3)


def test_buffers_beyond_half_of_the_memory_are_warned_of() -> None:
    """The buffers of all reactors together are held against half of the memory, not less."""
    own = ioxide.IncrementalConfig(max_connections=1024, recv_slots=16, recv_buffer_size=65536)
    config = SMALL.replace(reactors=4, incremental=own)
    assert "" == _advice(config, memory=8 * GIB)
    said = _advice(config, memory=8 * GIB - 2)
    assert "may take 4.0 GiB" in said, "a warning of 4 GiB"
    assert "max_connections=1024 of recv_slots=16 times recv_buffer_size=65536 bytes" in said
    assert "this machine has 8.0 GiB" in said
    # What it says to take is the most that is not warned of.
    assert "Take incremental.max_connections=1023," in said
    assert "" == _advice(SMALL.replace(reactors=4), memory=1)


def test_a_start_warns_of_what_the_machine_is_too_small_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On the one processor that is left, a server warns of its second reactor, and serves."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})  # of this thread, and of those that it starts
    try:
        with caplog.at_level(logging.WARNING, "ioxide"):
            for reactors in (1, 2):
                caplog.clear()
                with ioxide.Server(echo, SMALL.replace(reactors=reactors)) as server:
                    assert reactors == len(server.reactors)
                found = [record for record in caplog.records if "reactors=" in record.message]
                assert reactors - 1 == len(found), f"a warning of reactors={reactors}"
    finally:
        os.sched_setaffinity(0, allowed)
    assert ("ioxide", "WARNING") == (found[0].name, found[0].levelname)


def test_this_machine_has_processors_and_memory() -> None:
    """What the machine is asked are numbers that a real one has."""
    assert 1 <= advice.processors() <= (os.cpu_count() or 1)
    assert advice.memory() > 64 << 20
