# SPDX-License-Identifier: MIT
"""Reactors that come and go leave nothing: no descriptor, no thread, no locked memory.

Rings are charged to the user's RLIMIT_MEMLOCK up to 5.11 and again on newer kernels (seen on 6.18;
not on 6.12), root's never; what a closed ring was charged is given back asynchronously.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REACTORS, LIVES = 12, 40


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_forty_generations_of_an_ordinary_user() -> None:
    """Twelve reactors, forty times, in one and a half times the locked memory that they need."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.smoke.generations", str(REACTORS), str(LIVES)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=850,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"one generation is charged {found['charged']} bytes on this kernel")
    assert 0 != found["uid"]
    assert REACTORS * LIVES == found["answered"]
    assert (0, 0) == (found["fds"], found["threads"])
    # Where rings are charged, the limit was one that a leak of half a generation would have met.
    assert ("refused" if found["charged"] else "taken") == found["beside"]
