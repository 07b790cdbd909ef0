# SPDX-License-Identifier: MIT
"""Absolute times in a time namespace (CLONE_NEWTIME, 5.6)."""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ioxide._errata.present import ErratumPresent, NotTried, reproducer
from ioxide._probe.rawring import RawRing
from ioxide._ring import lib

CLONE_NEWTIME, CLONE_NEWUSER = 0x80, 0x10000000
TIMEOUT_ABS = 1 << 0  # IORING_TIMEOUT_ABS, 5.5
PR_SET_PDEATHSIG = 1
MOST_S = 1000
AWAY_S = 1.0
LIMIT_S = 40.0


def _timed() -> float:
    """How long an absolute timeout takes that is `AWAY_S` away, in seconds."""
    with RawRing() as ring:
        begun = time.monotonic()
        ring.push(
            lib.IOX_PROBE_OP_TIMEOUT,
            addr=ring.keep_timespec(begun + AWAY_S),
            len=1,
            op_flags=TIMEOUT_ABS,
        )
        found = ring.collect(1)
        assert len(found) == 1, "the timeout never fired"
        return time.monotonic() - begun


def _in_a_namespace() -> None:
    """Print how long it takes in a namespace, of which only children of this process are.

    This process and that child end with the one that started them, whatever ends that.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWTIME) != 0:
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWTIME) != 0:
            print(f"refused: {ctypes.get_errno()}")
            return
        try:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        except PermissionError as error:
            print(f"refused: {error.errno}")
            return
    # Not before, because the change of user namespace forgets it (commit_creds(), kernel/cred.c).
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    outside = time.monotonic()
    # Not before the clock's zero, which the kernel refuses (ERANGE).
    behind = int(min(MOST_S, outside / 2))
    Path("/proc/self/timens_offsets").write_text(f"monotonic {-behind} 0\n")
    pid = os.fork()
    if pid == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        faulthandler.dump_traceback_later(LIMIT_S / 2, exit=True)
        # The control: this clock is another one.
        shifted = time.monotonic() - outside
        print(f"{shifted:.3f} {_timed():.3f}", flush=True)
        os._exit(0)
    os.waitpid(pid, 0)


@reproducer("IOX-ERR-024")
def absolute_timeout_in_a_time_namespace() -> None:
    """IOX-ERR-024: an absolute timeout is one of the clock that the program sees.

    https://lkml.iu.edu/2605.0/01240.html; other absolute timers are taken out of the namespace by
    timens_ktime_to_host().
    """
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        # Meanwhile the control: outside of a namespace it takes as long as it should.
        usual = _timed()
        said, complaint = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        # Its child, too, which is in the namespace.
        os.killpg(process.pid, signal.SIGKILL)
        said, complaint = process.communicate()
        raise AssertionError(
            f"no end within {LIMIT_S:.0f} s: {said!r} {complaint!r}".replace("\n", " ")
        ) from None
    assert AWAY_S * 0.9 < usual, f"{usual} s outside of a namespace"
    if said.startswith("refused: "):
        number = int(said.split()[1])
        if number == errno.EINVAL:  # no time namespaces (CONFIG_TIME_NS), no erratum of them
            return
        raise NotTried(f"making a time namespace is refused: {os.strerror(number)}")
    assert process.returncode == 0, complaint
    shifted, took = map(float, said.split())
    assert shifted < -AWAY_S, f"the clock of the namespace is {shifted} s away"
    if took < AWAY_S / 2:
        raise ErratumPresent(
            "IOX-ERR-024",
            f"a timeout that is {AWAY_S} s away fired after {took} s, where the clock is "
            f"{-shifted:.1f} s behind",
        )
    assert AWAY_S * 0.9 < took, f"{took} s"


if __name__ == "__main__":
    _in_a_namespace()
