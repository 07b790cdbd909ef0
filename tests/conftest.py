# SPDX-License-Identifier: MIT
"""What all tests have: a failed one shows what its rings were asked and have answered.

ioxide is looked for among what a test has imported: `make lab-pythons` runs tests of the lab's
plugin where it is not installed.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Iterator
from typing import Any

import pytest

os.environ.setdefault("IOXIDE_RECORD", "quiet")


def _imported(name: str) -> Any:
    """A module of ioxide, or None."""
    return sys.modules.get(f"ioxide.{name}")


@pytest.fixture(autouse=True)
def _records_of_this_test() -> None:
    if record := _imported("_common.record"):
        record.forget()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """Finalizers run now, and not while the summary imports a module that pytest rewrites.

    One that logs a traceback parses source code for it (traceback.py, CPython 3.11). If it runs in
    the middle of another ast.parse(), that fails: "SystemError: AST constructor recursion depth
    mismatch" (PyAST_mod2obj() keeps one depth for the interpreter).
    """
    gc.collect()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:  # noqa: ARG001
    report = yield
    record = _imported("_common.record")
    if report.failed and record:
        for name, found in record.ended():
            report.sections.append((f"the last of the ring of {name}", record.in_words(found)))
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_lab_hang() -> Iterator[tuple[str, str]]:
    """What the rings of a test that hangs were asked last."""
    record, module = _imported("_common.record"), _imported("_driver.driver")
    if not record or not module:
        return
    for driver in [one for one in gc.get_objects() if isinstance(one, module.Driver)]:
        if raw := driver._core.record():
            name = f"the last of the ring of {driver.thread.name}"
            yield name, record.in_words(record.entries(raw))
