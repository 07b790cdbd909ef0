# SPDX-License-Identifier: MIT
"""What all tests have: a failed one shows what its rings were asked and have answered."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest

from ioxide import record

os.environ.setdefault(record.VARIABLE, "quiet")


@pytest.fixture(autouse=True)
def _records_of_this_test() -> None:
    record.forget()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:  # noqa: ARG001
    report = yield
    if report.failed:
        for name, found in record.ended():
            report.sections.append((f"the last of the ring of {name}", record.in_words(found)))
    return report
