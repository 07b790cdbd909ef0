# SPDX-License-Identifier: MIT
"""Tests that run on the host and ask a guest: pytest's own thread runs each, while it alone has the
guest.

What comes of one takes the way of every test: its reports go, in pytest's serialized form, into the
outcome that the session of its guest gives to the judge.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.runner import runtestprotocol

from ..errors import LabError
from ..facts.probed import Probed
from .host_hang import LOOK_S, HostHang
from .plan import Visit
from .selection import GUEST_FIXTURE, asks_guest

if TYPE_CHECKING:
    from .testinfra_host import GuestBackend

GRACE_S = 15.0
"""So long, in seconds, a test may take beyond its limit: until then what it asks the guest is ended
there, and the test can say what it was."""
AGAIN_S = 10.0
"""What is still left of a test that was ended, its teardown say, is ended after so many seconds."""


class HostSide:
    """Runs what the lanes send to the host, one test at a time."""

    def __init__(self, fault: Callable[[str], None], results: Callable[[], Path]) -> None:
        """`fault` is told what disproves without belonging to one test; `results` is where the
        files of the run are."""
        self._results = results
        self._probe_of: Callable[[str], Probed | None] = lambda _: None
        self._fault = fault
        self._item: pytest.Item | None = None
        self._visit: Visit | None = None
        self._backend: GuestBackend | None = None
        self._reports: list[pytest.TestReport] = []
        self._expected: pytest.Item | None = None
        """For whom the last test has left fixtures of its module, class or session."""

    def runs(self, item: pytest.Item) -> bool:
        """Whether this test is being run here, with a guest."""
        return item is self._item

    def probe(self) -> Probed | None:
        """The probe of the guest that the test has; None between tests."""
        return self._probe_of(self._item.nodeid) if self._item is not None else None

    def guest_host(self, item: pytest.Item) -> Any:
        """The guest as a `Host` of pytest-testinfra, for the test that has it."""
        if item is not self._item or self._visit is None:
            pytest.fail(f"{GUEST_FIXTURE}: this test has no guest", pytrace=False)
        try:
            from . import testinfra_host
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "testinfra":
                raise
            pytest.fail(
                f"{GUEST_FIXTURE} is a Host of pytest-testinfra, which is not installed: "
                "pip install pytest-testinfra",
                pytrace=False,
            )
        deadline = time.monotonic() + self._visit.seconds
        try:
            self._backend, host = testinfra_host.host_of(self._visit.guest, deadline)
        except LabError as error:
            pytest.fail(f"{GUEST_FIXTURE}: {error}", pytrace=False)
        return host

    def run(
        self,
        item: pytest.Item,
        following: pytest.Item | None,
        visit: Visit,
        probe_of: Callable[[str], Probed | None],
    ) -> None:
        """Run the test to its end and fill in its visit. `following` is the next test, which comes
        here if it asks the same guest; `probe_of` gives the probe of such a guest as the test with
        this id has. Raises what is to end the whole session."""
        self._probe_of = probe_of
        if self._expected is not item:
            self.finish(item.session)  # another lane's test, which has no use for what it left
        if following is not None and not asks_guest(following):
            following = None
        self._item, self._visit, self._expected = item, visit, following
        self._reports.clear()
        try:
            with self._limited(item, visit):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        except pytest.exit.Exception as error:
            visit.outcome.lost = f"it called pytest.exit(): {error.msg}"
            item.session.shouldstop = visit.outcome.lost
            self._expected = None
        else:
            self._judge()
        finally:
            self._item = self._visit = self._backend = None
        for report in self._reports:
            data = item.config.hook.pytest_report_to_serializable(config=item.config, report=report)
            # As it comes from a guest: what is no JSON becomes text.
            visit.outcome.reports.append(json.loads(json.dumps(data, default=str)))
        visit.over = True

    def finish(self, session: pytest.Session) -> None:
        """Tear down what the last test has left for one that does not come."""
        self._expected = None
        try:
            session._setupstate.teardown_exact(None)
        except Exception as error:
            self._fault(f"a fixture of tests on the host failed when it was torn down: {error!r}")

    def _judge(self) -> None:
        """A test that asks its guest nothing says nothing about its kernel."""
        if self._backend is not None and self._backend.asked:
            return
        if all(report.passed for report in self._reports):
            called = next(report for report in self._reports if report.when == "call")
            called.outcome = "failed"
            called.longrepr = (
                "it asked its guest nothing, so it proves nothing about this kernel: a test with "
                f"{GUEST_FIXTURE} runs a command there, or asks what does"
            )

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        """Keep the reports: whoever shows them shows what the judge made of them."""
        if item is not self._item:
            return None
        self._reports += runtestprotocol(item, log=False, nextitem=nextitem)
        return True

    @pytest.hookimpl(optionalhook=True)
    def pytest_timeout_set_timer(self) -> bool:
        """The lab keeps the time, by the guest's speed; pytest-timeout would use its signal."""
        return True

    @contextmanager
    def _limited(self, item: pytest.Item, visit: Visit) -> Iterator[None]:
        """End what takes too long, wherever the main thread is, once that has been looked at."""
        hang: HostHang | None = None

        def ring(_: int, __: FrameType | None) -> None:
            nonlocal hang
            if hang is None:
                why = f"no verdict within {visit.seconds:.0f} s"
                hang = HostHang(item, why, visit.guest.console.parent, self._results())
                signal.setitimer(signal.ITIMER_REAL, LOOK_S, AGAIN_S)
                return
            if not visit.hung:
                visit.hung = f"no verdict within {visit.seconds:.0f} s; {hang.told()}"
                visit.outcome.hang = hang.part
            pytest.fail(visit.hung)

        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, visit.seconds + GRACE_S, AGAIN_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            if hang is not None and not visit.hung:
                hang.forget()
