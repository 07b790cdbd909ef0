# SPDX-License-Identifier: MIT
"""What all tests have: a failed one shows what its rings were asked and have answered."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from ioxide import record
from ioxide.driver import Driver

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


@pytest.hookimpl(optionalhook=True)
def pytest_lab_hang() -> Iterator[tuple[str, str]]:
    """What the rings of a test that hangs were asked last."""
    for driver in [one for one in gc.get_objects() if isinstance(one, Driver)]:
        if raw := driver._core.record():
            name = f"the last of the ring of {driver.thread.name}"
            yield name, record.in_words(record.entries(raw))
