# SPDX-License-Identifier: MIT
"""A plugin of pytest that writes what came of each test, as JSON, to the file in $OUTCOMES."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

_found: dict[str, str] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """The worst of set-up, call and teardown counts; a subtest counts for its test."""
    name = report.nodeid
    if report.failed:
        _found[name] = "failed"
    elif report.skipped and _found.get(name) != "failed" and type(report) is pytest.TestReport:
        _found[name] = "skipped"
    else:
        _found.setdefault(name, "passed")


def pytest_sessionfinish() -> None:
    """Write them."""
    Path(os.environ["OUTCOMES"]).write_text(json.dumps(_found))
