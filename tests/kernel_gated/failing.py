# SPDX-License-Identifier: MIT
"""Memory allocations that fail in the kernel, one after the other, in the reactor's own calls.

The kernel counts the allocations of a task and lets the nth one fail (/proc/thread-self/fail-nth).
The C core arms that around io_uring_setup(2), io_uring_register(2), io_uring_enter(2) and mmap(2),
and nowhere else (ioxide/_ring/plain/failing.h): what fails is never an allocation of Python's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ioxide._ring import _core
from tests.kernel_gated import debugfs

MOST = 400
"""No step of the reactor's life allocates so often."""
_SETTINGS = {
    # By default only allocations that may not wait fail, and pages only in orders above 0.
    "failslab/ignore-gfp-wait": "N",
    "fail_page_alloc/ignore-gfp-wait": "N",
    "fail_page_alloc/min-order": "0",
    # A stack trace for each fault would fill the kernel's log.
    "failslab/verbose": "0",
    "fail_page_alloc/verbose": "0",
}


@contextmanager
def all_may_fail() -> Iterator[None]:
    """Every allocation of slabs and of the kernel's own pages may fail; it takes root."""
    root = debugfs.mounted("failslab").parent
    before = {name: (root / name).read_text() for name in _SETTINGS}
    try:
        for name, value in _SETTINGS.items():
            (root / name).write_text(value)
        yield
    finally:
        for name, value in before.items():
            (root / name).write_text(value)


def arm(nth: int) -> None:
    """The nth allocation of the core's calls on this thread fails."""
    _core._fail_nth(nth)


def disarm() -> str:
    """None fails any more; in which call one has failed since `arm()`, empty if none has."""
    return _core._fail_nth(0)


def walk(attempt: Callable[[int], str]) -> Counter[str]:
    """`attempt(nth)` for each nth from 1 on until it says that nothing failed in it any more.

    How many allocations failed in which call.
    """
    faults: Counter[str] = Counter()
    for nth in range(1, MOST):
        failed = attempt(nth)
        if not failed:
            return faults
        faults[failed] += 1
    raise AssertionError(f"there was an allocation to fail {MOST} times: {faults}")
