# SPDX-License-Identifier: MIT
"""The conversation between the host's pytest and the guest's.

How messages travel and are checked is in `lab.remote.wire`; here is which there are.

Guest to host:  hello, collected, start, report, finish, trouble, done.
Host to guest:  welcome, run, stop.
"""

from __future__ import annotations

import signal
from enum import StrEnum

from ..remote.identity import PROOF
from ..remote.wire import DONE, TROUBLE, Kinds

HANG_SIGNAL = int(signal.SIGRTMAX)
"""Asks the guest's pytest what its repository knows of the test that hangs; no test uses it."""


class Said(StrEnum):
    """What the guest's pytest says."""

    HELLO = "hello"
    COLLECTED = "collected"
    START = "start"
    REPORT = "report"
    FINISH = "finish"
    TROUBLE = TROUBLE
    DONE = DONE


class Told(StrEnum):
    """What the host tells it."""

    WELCOME = "welcome"
    RUN = "run"
    STOP = "stop"


FROM_GUEST: Kinds = {
    Said.HELLO: {**dict.fromkeys(PROOF, str), "strangers": list, "pid": int},
    Said.COLLECTED: {"ids": list, "errors": list},
    Said.START: {"id": str},
    Said.REPORT: {"id": str, "data": dict},
    Said.FINISH: {"id": str, "reports": int},
    Said.TROUBLE: {"text": str},
    Said.DONE: {"finished": int, "status": int, "left": list},
}
TO_GUEST: Kinds = {
    Told.WELCOME: {"expected": dict, "probe": dict, "programs": dict},
    Told.RUN: {"id": str},
    Told.STOP: {},
}
