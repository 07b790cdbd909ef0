# SPDX-License-Identifier: MIT
"""The NAPI experiments: does a waiting ring really poll the network device, and only the one that
it was told of?

The loopback has no NAPI, so a device is needed whose packets do: a veth pair between two network
namespaces.  They are made by a child process (napi_child.py), so the caller's namespaces never
change, and nothing is left behind whatever becomes of the child.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from ioxide._probe.outcome import REFUSALS, Outcome, refused, verdict
from ioxide._probe.rawring import RawRing
from ioxide._ring import ffi, lib

__all__ = ["napi", "napi_static"]

# One fresh interpreter under emulation takes some seconds to start and import, and is patient with
# a busy machine for half a minute (napi_child.py); the rest is in reserve.
_CHILD_TIMEOUT_S = 90.0

_REGISTER_NAPI = 27
_TRACK_STATIC = 1  # IO_URING_NAPI_TRACKING_STATIC
_COUNTER = "BusyPollRxPackets"
_CHILD = "ioxide._probe.napi_child"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the child said: evidence of both questions, or why there is none."""

    note: str
    evidence: dict[str, object] | None = None
    static: dict[str, object] = field(default_factory=dict)
    found: dict[str, object] = field(default_factory=dict)
    """What is known where there is no evidence."""


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
    observed, evidence, note = _judge(answer := _ask_child())
    _asked.append(answer)
    return Outcome(True, observed, {**evidence, **told}, note)


_asked: list[Answer] = []
"""The child answers two questions at once: what it said to the first is kept for the second."""


def napi_static() -> Outcome:
    """A ring that was told of one device polls it, and polled none before it was told (6.13)."""
    known = _asked.pop() if _asked else None
    with RawRing() as ring:
        # struct io_uring_napi: operation 0 (register), and the tracking that it asks for.
        result = ring.register(_REGISTER_NAPI, ffi.new("uint32_t[4]", [50, 0, _TRACK_STATIC]))
    if -result in REFUSALS:
        return refused(result, "IO_URING_NAPI_TRACKING_STATIC")
    answer = known or _ask_child()
    if answer.evidence is None:
        return Outcome(None, None, answer.found, answer.note)
    found = answer.static
    if "not_tried" in found:
        return Outcome(None, None, {}, f"could not be tried: {found['not_tried']}")
    if isinstance(refusal := found.get("result"), int):
        return Outcome(None, None, found, f"could not be tried: {os.strerror(-refusal)}")
    grown, untold = found.get(_COUNTER), found.get("control_without_device")
    seen = isinstance(grown, int) and grown > 0 and untold == 0
    return verdict(seen, found, "no device was polled, or one that the ring was not told of")


def _ask_child() -> Answer:
    """What the child said; every way it can fail becomes a reason."""
    if not sys.executable:
        return Answer("needs a child process, but sys.executable is empty here")
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
        return Answer(f"the child with the veth pair took more than {_CHILD_TIMEOUT_S:.0f} s")
    try:
        # The last line: a sitecustomize of this installation may print, too.
        said = json.loads(done.stdout.splitlines()[-1])
        if "refused" in said:
            why = f"the veth pair failed: {said['refused']}"
            return Answer(why, found={"child": said["refused"]})
        return Answer("", evidence=dict(said["evidence"]), static=dict(said["static"]))
    except (ValueError, LookupError, TypeError):
        words = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
        why = f"the child with the veth pair ended with {done.returncode}, saying {words[-1]!r}"
        return Answer(why, found={"child_status": done.returncode})


def _judge(answer: Answer) -> tuple[bool | None, dict[str, object], str]:
    """Whether a ring that looks for devices itself polled one."""
    if answer.evidence is None:
        return None, answer.found, answer.note
    evidence = answer.evidence
    grown = evidence.get(_COUNTER)
    if evidence.get("control_without_napi") != 0:
        # The sysctls net.core.busy_read and busy_poll make every socket poll.
        return None, evidence, f"{_COUNTER} grows without NAPI too, so it proves nothing here"
    if isinstance(grown, int) and grown > 0:
        return True, evidence, ""
    came = evidence.get("bytes")
    return False, evidence, f"{_COUNTER} did not grow while {came} bytes came over a veth pair"
