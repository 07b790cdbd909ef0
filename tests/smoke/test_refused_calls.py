# SPDX-License-Identifier: MIT
"""System calls that the kernel refuses for now: the reactor waits, or tries again.

What closed rings were charged against RLIMIT_MEMLOCK comes back asynchronously, so ENOMEM may be
over in a moment; and io_uring_enter(2) may answer EBUSY while completions have overflowed, EAGAIN
without memory.  No kernel at hand does the latter (6.1 to 7.3), so a seccomp filter plays it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import TIMEOUT


def _serve(*rules: str) -> dict[str, Any]:
    """What became of a server while system calls were refused as `rules` say."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.smoke.refused_calls", *rules],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=4 * TIMEOUT,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.issue(95)
def test_a_refused_enter_is_tried_again() -> None:
    """EBUSY and EAGAIN of io_uring_enter are counted, and nothing that was staged is lost."""
    found = _serve("enter=EBUSY,EAGAIN,EBUSY,EAGAIN,EBUSY")
    assert "" == found["error"], f"{found['error']} of an enter ended the reactor"
    assert (2, 3, 5) == (found["eagain"], found["ebusy"], found["refused"])
    assert found["echoed"], "bytes were lost"


@pytest.mark.issue(95)
@pytest.mark.parametrize("name", ["EAGAIN", "EBUSY"])
def test_a_refused_reactor_rests(name: str) -> None:
    """An idle reactor that is refused waits in the kernel before it asks again."""
    found = _serve("enter=" + ",".join([name] * 40))
    assert ("", 40, True) == (found["error"], found["refused"], found["echoed"])
    # A tick of an asyncio loop that has callbacks to run does not wait; the start has a few.
    assert found["rested"] >= 20, f"{found['rested']} rests after 40 refused enters"


@pytest.mark.issue(95)
def test_completions_that_the_kernel_dropped_end_the_reactor() -> None:
    """EBADR is told in a sentence with the queue's size and what to do, not by its errno alone."""
    found = _serve("enter=EBADR")
    assert ("EBADR", 1) == (found["error"], found["refused"])
    assert "did not fit into cq_entries=1024" in found["says"], found["says"]
    assert "Allow the process more memory, or the ring a larger cq_entries." in found["says"]


@pytest.mark.issue(95)
def test_an_enter_that_fails_for_good_says_where_to_look() -> None:
    """EBADF and its like end the reactor by a sentence with the ring's descriptor."""
    found = _serve("enter=EBADF")
    assert ("EBADF", 1) == (found["error"], found["refused"])
    assert "io_uring_enter(2) failed: Bad file descriptor" in found["says"], found["says"]
    assert "closed its descriptor " in found["says"]


@pytest.mark.slow
def test_a_start_waits_for_locked_memory() -> None:
    """A ring, or its buffers, for which there is no memory yet are asked for again."""
    for what, call in (("ring", "setup"), ("buffers", "register")):
        found = _serve(f"{call}=ENOMEM,ENOMEM,ENOMEM")
        refused = found["refused"]
        assert "" == found["error"], f"no {what}: {found['error']} after {refused} refused"
        assert (3, True) == (refused, found["echoed"])


@pytest.mark.slow
def test_a_start_does_not_wait_for_ever() -> None:
    """Memory that does not come is an error in the end."""
    found = _serve("setup=" + ",".join(["ENOMEM"] * 20))
    assert ("ENOMEM", 6) == (found["error"], found["refused"])
