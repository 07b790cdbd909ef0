# SPDX-License-Identifier: MIT
"""The NAPI experiment: does a waiting ring really poll the network device?

The loopback has no NAPI, so a device is needed whose packets do: a veth pair between two network
namespaces.  They are made by a child process (napi_child.py), so the caller's namespaces never
change, and nothing is left behind whatever becomes of the child.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ioxide._probe.outcome import REFUSALS, Outcome, refused
from ioxide._probe.rawring import RawRing
from ioxide._ring import ffi, lib

__all__ = ["napi"]

# One fresh interpreter under emulation takes some seconds to start and import, and is patient with
# a busy machine for half a minute (napi_child.py); the rest is in reserve.
_CHILD_TIMEOUT_S = 90.0

_COUNTER = "BusyPollRxPackets"
_CHILD = "ioxide._probe.napi_child"


def napi() -> Outcome:
    """Unregistering tells the values that were set; then a device is polled, in a child process.

    A kernel that ignored the call would not know the values: that is why accepted means this.  What
    the ring's fdinfo says is of no use, NAPI came into it with 6.12 only.
    """
    with RawRing() as ring:
        timeout_us, prefer = ffi.new("uint32_t *", 77), ffi.new("uint8_t *", 1)
        result = int(lib.iox_probe_napi(ring.raw, 1, timeout_us, prefer))
        if -result in REFUSALS:
            return refused(result, "IORING_REGISTER_NAPI")
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        result = int(lib.iox_probe_napi(ring.raw, 0, timeout_us, prefer))
        told: dict[str, object] = {
            "unregister": result,
            "was_busy_poll_us": int(timeout_us[0]),
            "was_prefer_busy_poll": int(prefer[0]),
        }
        if result != 0 or (timeout_us[0], prefer[0]) != (77, 1):
            return Outcome(False, False, told, "unregistering did not tell what was set")
    observed, evidence, note = _ask_child()
    return Outcome(True, observed, {**evidence, **told}, note)


def _ask_child() -> tuple[bool | None, dict[str, object], str]:
    """What the child observed; every way it can fail becomes "not tried", with the reason."""
    if not sys.executable:
        return None, {}, "needs a child process, but sys.executable is empty here"
    # The child must find this very package, wherever it was imported from.
    home = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH", ""))))
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", _CHILD],  # -P: never from the current directory
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_CHILD_TIMEOUT_S,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, {}, f"the child with the veth pair took more than {_CHILD_TIMEOUT_S:.0f} s"
    try:
        # The last line: a sitecustomize of this installation may print, too.
        answer = json.loads(done.stdout.splitlines()[-1])
        if "refused" in answer:
            return None, {"child": answer["refused"]}, f"the veth pair failed: {answer['refused']}"
        evidence = dict(answer["evidence"])
    except (ValueError, LookupError, TypeError):
        words = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
        why = f"the child with the veth pair ended with {done.returncode}, saying {words[-1]!r}"
        return None, {"child_status": done.returncode}, why
    grown = evidence.get(_COUNTER)
    if evidence.get("control_without_napi") != 0:
        # The sysctls net.core.busy_read and busy_poll make every socket poll.
        return None, evidence, f"{_COUNTER} grows without NAPI too, so it proves nothing here"
    if isinstance(grown, int) and grown > 0:
        return True, evidence, ""
    came = evidence.get("bytes")
    return False, evidence, f"{_COUNTER} did not grow while {came} bytes came over a veth pair"
