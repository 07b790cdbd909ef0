# SPDX-License-Identifier: MIT
"""``python -m tests.differential.worker LOOP CERTIFICATE``: scenarios in, what was seen out.

Each line in is ``{"scenario": "...", "patience": 1.0}``. A scenario that needs a process of its own
gets this one by being the only line.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import traceback

from tests.differential import interpreter, processes
from tests.differential.protocols import Tls
from tests.differential.scenario import parse

_DESCRIPTORS = 256


def _loop(name: str) -> interpreter.NewLoop:
    if name == "asyncio":
        return asyncio.SelectorEventLoop
    import ioxide
    from tests.support import SMALL

    # Small rings, so that a few dozen bytes are enough to run out of receive buffers.
    return lambda: ioxide.new_event_loop(SMALL)


def main() -> None:
    """Serve until the input ends."""
    name, certificate = sys.argv[1:]
    new_loop, tls = _loop(name), Tls(certificate)
    # Few enough to be used up by a scenario, before anything listens.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, hard))
    # What a scenario prints, or a loop logs, must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        scenario = parse(request["scenario"])
        try:
            if scenario.kind == "connections":
                seen = interpreter.run(scenario, new_loop, tls, request["patience"])
            else:
                seen = processes.run(scenario, new_loop, request["patience"])
        except Exception:
            # Of the oracle itself: never to be taken for what a loop did.
            seen = {"broken": traceback.format_exc()}
        answers.write(json.dumps(seen) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
