# SPDX-License-Identifier: MIT
"""NAPI: a waiting ring polls the network device, IORING_REGISTER_NAPI (6.9)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ioxide._probe.rawring import RawRing
from ioxide._ring._native import ffi, lib
from tests.kernel_gated.rawtools import REACTOR_FLAGS
from tests.support import TIMEOUT

pytestmark = [pytest.mark.kernel_gated, pytest.mark.needs("NAPI")]

ROOT = Path(__file__).parents[2]


def test_device_is_polled_while_napi_is_registered() -> None:
    """One ring, three rounds: the kernel counts polled packets in the second and in no other."""
    done = subprocess.run(
        [sys.executable, "-P", str(Path(__file__).with_name("napi_traffic.py"))],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=4 * TIMEOUT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    (came_before, before), (came_with, polled), (came_after, after) = json.loads(done.stdout)
    assert [60_000] * 3 == [came_before, came_with, came_after]
    assert before == 0
    assert polled > 0
    assert after == 0


def test_each_call_tells_the_previous_values() -> None:
    """Register, register again, unregister: each hands back what was set before it."""
    told = []
    with RawRing(flags=REACTOR_FLAGS) as ring:
        timeout_us, prefer = ffi.new("uint32_t *"), ffi.new("uint8_t *")
        for enable, wanted in ((1, (11, 1)), (1, (22, 0)), (0, (0, 0))):
            timeout_us[0], prefer[0] = wanted
            assert int(lib.iox_probe_napi(ring.raw, enable, timeout_us, prefer)) == 0
            told.append((int(timeout_us[0]), int(prefer[0])))
    assert [(0, 0), (11, 1), (22, 0)] == told
