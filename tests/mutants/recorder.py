# SPDX-License-Identifier: MIT
"""A pytest plugin that writes down what each test did, line by line, as it happens.

Loaded from outside the tree under test, and made of the standard library alone: it must work
whatever a mutant does to the tree.  A process that dies leaves behind what it had written.
"""

from __future__ import annotations

import json
import os
from typing import Any


def _write(record: dict[str, Any]) -> None:
    line = json.dumps(record) + "\n"
    descriptor = os.open(os.environ["MUTANTS_RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def _messages(failure: Any) -> list[str]:
    """The message of the exception, and of each that it was raised in the handling of."""
    chain = [crash for _, crash, _ in getattr(failure, "chain", ())]
    chain = chain or [getattr(failure, "reprcrash", None)]
    return [crash.message for crash in chain if crash is not None] or [str(failure)]


def pytest_runtest_logstart(nodeid: str) -> None:
    _write({"id": nodeid, "when": "start"})


def pytest_runtest_logreport(report: Any) -> None:
    record = {"id": report.nodeid, "when": report.when, "outcome": report.outcome}
    if report.outcome != "passed":
        record["messages"] = _messages(report.longrepr)
        record["text"] = report.longreprtext
    _write(record)
