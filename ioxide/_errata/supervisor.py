# SPDX-License-Identifier: MIT
"""Runs reproducers in children of this process, some at once, each with a limit on its time:
`python -m ioxide._errata.supervisor`.

It imports them once, for under emulation the start of a Python takes longer than all of them.
Standard input is a `Task` as JSON, each line of standard output is an id, an outcome and a line
about it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ioxide._errata.complaints import complaints
from ioxide._errata.every import REPRODUCERS
from ioxide._errata.present import ErratumPresent, NotTried

_KILLED_S = 2.0
"""What is not gone so long after SIGKILL is in the kernel for good."""


@dataclass(slots=True)
class Child:
    """A reproducer that runs."""

    id: str
    pid: int
    reader: int
    deadline: float
    complaints: int
    """Of the kernel, before it ran."""
    said: bytes = field(default=b"")


def main() -> None:
    """Run what standard input names."""
    assert __debug__, "the controls of reproducers are assertions"
    task = json.load(sys.stdin)
    _run(task["together"], task["limit_s"], task["at_once"])
    _run(task["alone"], task["limit_s"], 1)


def _run(ids: Sequence[str], limit_s: float, at_once: int) -> None:
    todo, running = list(ids), dict[int, Child]()
    while todo or running:
        while todo and len(running) < at_once:
            child = _begun(todo.pop(0), limit_s)
            running[child.reader] = child
        soonest = min(child.deadline for child in running.values())
        ready = select.select([*running], [], [], max(soonest - time.monotonic(), 0))[0]
        for reader in ready:
            child = running[reader]
            data = os.read(reader, 65536)
            child.said += data
            if not data:
                _tell(child, *_judged(child, _gone(child, _KILLED_S)))
                os.close(running.pop(reader).reader)
        for child in [c for c in running.values() if time.monotonic() >= c.deadline]:
            os.killpg(child.pid, signal.SIGKILL)
            why = f"its process did not end within {limit_s:.0f} s"
            if _gone(child, _KILLED_S) is None:
                why += ", nor by SIGKILL"
            _tell(child, "failed", why)
            os.close(running.pop(child.reader).reader)


def _begun(id: str, limit_s: float) -> Child:
    reader, writer = os.pipe()
    before = complaints()
    pid = os.fork()
    if pid:
        os.close(writer)
        return Child(id, pid, reader, time.monotonic() + limit_s, before)
    try:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):  # whatever it leaves behind holds nothing of this process
            os.dup2(nowhere, descriptor)
        os.write(writer, json.dumps(_tried(id)).encode())
    finally:
        os._exit(0)


def _tried(id: str) -> tuple[str, str]:
    try:
        REPRODUCERS[id].run()
    except ErratumPresent as present:
        return "bad", present.evidence
    except NotTried as reason:
        return "not tried", str(reason)
    except Exception as error:
        words = str(error).splitlines() or [""]
        return "failed", f"{type(error).__name__}: {words[0]}"
    return "good", ""


def _gone(child: Child, within_s: float) -> int | None:
    """The wait status of a child that is about to end; None if it does not."""
    deadline = time.monotonic() + within_s
    while True:
        ended, status = os.waitpid(child.pid, os.WNOHANG)
        if ended:
            return status
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.005)


def _judged(child: Child, status: int | None) -> tuple[str, str]:
    try:
        outcome, why = json.loads(child.said)
    except ValueError:
        code = None if status is None else os.waitstatus_to_exitcode(status)
        how = f"signal {-code}" if code is not None and code < 0 else f"status {code}"
        return "failed", f"its process ended by {how} and said nothing"
    return outcome, why


def _tell(child: Child, outcome: str, why: str) -> None:
    if complaints() & ~child.complaints:
        # It, or another one that ran beside it.
        why = f"{why}; " * bool(why) + "the kernel complained while it ran, see dmesg"
        outcome = "failed" if outcome == "good" else outcome
    print(json.dumps([child.id, outcome, why]), flush=True)


if __name__ == "__main__":
    main()
