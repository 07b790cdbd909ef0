# SPDX-License-Identifier: MIT
"""What lacks a file descriptor at its start says so in a sentence, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import TIMEOUT

ROOT = Path(__file__).parents[2]

# In a process of its own, because the limit is the process's.  It starts with none to spare, then
# with one more each time until it works, and prints what went wrong, in finalizers too.
PROGRAM = """
import gc, os, resource, sys
os.closerange(3, 1024)  # the limit is one of numbers, so there must be no gap among them
import ioxide
from tests.support import SMALL, echo

WHAT = sys.argv[1]
sys.unraisablehook = lambda unraisable: print("unraisable:", unraisable)

async def nothing():
    pass

def start():
    if WHAT == "server":
        with ioxide.Server(echo, SMALL):
            pass
    else:
        ioxide.run(nothing(), config=SMALL)

def opened():
    return len(os.listdir("/proc/self/fd"))

gc.collect()
gc.freeze()  # what was imported is not to be looked at each time
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
used = opened()
for spare in range(64):
    resource.setrlimit(resource.RLIMIT_NOFILE, (used - 1 + spare, hard))
    try:
        start()
    except OSError as error:
        problem = error.strerror
        error = None
        gc.collect()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        print("error:", problem, "" if opened() == used else "It forgot a descriptor.")
    else:
        print("works")
        break
"""


@pytest.mark.parametrize("what", ["server", pytest.param("run", marks=pytest.mark.slow)])
def test_without_a_descriptor_it_says_so(what: str) -> None:
    """However many descriptors are missing, the error names the limit; what was open is closed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, what],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert ("", 0) == (done.stderr, done.returncode)
    *errors, end = done.stdout.splitlines()
    assert "works" == end
    assert len(errors) >= 4  # there are a ring, an eventfd, an epoll and a self-pipe to open
    for error in errors:
        assert error.startswith("error: ")
        assert "ulimit -n" in error
        assert "forgot" not in error


# As above, a driver or a loop with so many descriptors to spare, whatever the limit is of.
STAGES = """
import os, resource, sys
os.closerange(3, 1024)
import ioxide
from tests.support import SMALL

make = {"driver": ioxide.Driver, "loop": ioxide.new_event_loop}[sys.argv[1]]
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
used = len(os.listdir("/proc/self/fd"))
for spare in range(7):
    resource.setrlimit(resource.RLIMIT_NOFILE, (used - 1 + spare, hard))
    try:
        made = make(SMALL)
    except OSError as error:
        print(error.strerror)
    else:
        print("works")
        made.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    left = len(os.listdir("/proc/self/fd")) - used
    if left:
        print(f"{left} descriptors are left with {spare} to spare")
"""

RING = "io_uring_setup failed: there is no file descriptor left for a ring (EMFILE): "
WAKE = "there is no file descriptor left for the eventfd that wakes a ring (Too many open files): "
LOOP = (
    "there is no file descriptor left for an event loop's epoll and self-pipe (Too many open "
    "files): "
)
WAY_OUT = "close some, or raise the limit with `ulimit -n`."


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("driver", [RING, WAKE]),
        ("loop", [RING, WAKE, LOOP, LOOP, LOOP]),  # epoll, and the two ends of the self-pipe
    ],
)
def test_each_stage_names_what_lacks_a_descriptor(what: str, told: list[str]) -> None:
    """The sentence names the thing that found no descriptor left, and nothing stays open."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", STAGES, what],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert ("", 0) == (done.stderr, done.returncode)
    expected = [reason + WAY_OUT for reason in told]
    assert expected + ["works"] * (7 - len(told)) == done.stdout.splitlines()
