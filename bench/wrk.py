# SPDX-License-Identifier: MIT
"""Runs wrk against the plaintext server, with the context on and off.

Printed, not judged: on two cores wrk is at its own limit before the server is.
"""

from __future__ import annotations

import re
import shutil
import subprocess

from bench.errors import Void
from bench.process import CONNECTIONS, TIMEOUT, running, same_core

SECONDS = 2
ROUNDS = 3


def rate(text: str) -> float:
    """Requests a second, of wrk's report; raises `Void` when a request failed."""
    found = re.search(r"^Requests/sec: +([\d.]+)$", text, re.MULTILINE)
    bad = re.search(r"^ *(?:Socket errors|Non-2xx or 3xx responses): .*$", text, re.MULTILINE)
    if found is None or float(found[1]) == 0 or bad is not None:
        raise Void(f"wrk: {bad[0].strip() if bad else text.strip() or 'said nothing'}")
    return float(found[1])


def _measure(settings: dict[str, object]) -> float:
    with running(settings) as server:
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s"]
        done = subprocess.run(
            ["taskset", "-c", str(same_core()), *command, f"http://127.0.0.1:{server.port}/"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT,
        )
    return rate(done.stdout)


def compare() -> str:
    """Both, in turn, as a sentence; also when there is no wrk."""
    if shutil.which("wrk") is None:
        return "wrk is not installed: its figures are missing here"
    on, off = [], []
    for _ in range(ROUNDS):
        on.append(_measure({}))
        off.append(_measure({"context": False}))
    ratios = sorted(a / b for a, b in zip(on, off, strict=True))
    return (
        f"wrk -t1 -c{CONNECTIONS} on the server's core, not judged: context on {max(on):.0f} "
        f"requests/s, off {max(off):.0f}; on/off {ratios[ROUNDS // 2]:.2f} "
        f"[{ratios[0]:.2f} .. {ratios[-1]:.2f}] over {ROUNDS} rounds"
    )
