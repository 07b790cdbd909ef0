# SPDX-License-Identifier: MIT
"""pytest inside a guest: collects, says what it has, and runs an item when it is told to.

The host keeps the time and the book; this side only tells, in order, what happened.  It imports
nothing but pytest, the standard library and the small modules beside it: under emulation each
import costs eleven times what it costs on the host.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Generator
from typing import Any

import pytest

from ..facts.probed import Probed
from ..remote import tree
from ..remote.identity import Expected, Identity, identify
from ..remote.wire import CONTROL_VARIABLE, Control
from .left import left
from .printed import Printed
from .selection import leave_out
from .wire import HANG_SIGNAL, TO_GUEST, Said, Told


class GuestSide:
    """The guest's mode of the plugin."""

    def __init__(self, config: pytest.Config) -> None:
        descriptor = os.environ.get(CONTROL_VARIABLE, "")
        if not descriptor.isdigit():
            raise pytest.UsageError(f"--lab-guest needs {CONTROL_VARIABLE}, got {descriptor!r}")
        self.config = config
        self._control = Control.inherited(TO_GUEST)
        self._finished = 0
        self._reports = 0
        self._collect_errors: list[str] = []
        gc.disable()  # hardly anything of what is imported and collected is garbage
        config.pluginmanager.register(Printed(), "lab-printed")
        signal.signal(HANG_SIGNAL, self._tell_of_a_hang)
        own = identify(config.rootpath, None)
        manifest = tree.Manifest.here(config.rootpath)
        self.skips_need_proof = manifest.skips_need_proof
        strangers = tree.strangers_here(config.rootpath, manifest)
        self._control.say(Said.HELLO, **own.proof(), strangers=strangers, pid=os.getpid())
        kind, welcome = self._control.listen()
        if kind != Told.WELCOME:
            raise pytest.UsageError(f"the host said {kind!r} where a welcome was due")
        probe = welcome["probe"]
        self.probe = Probed.from_object(probe) if probe else None
        """None where the repository has no probe."""
        self.identity = Identity(
            own.release,
            own.nonce,
            own.tree_sha256,
            own.extension_sha256,
            own.bytecode_sha256,
            Expected.from_json(welcome["expected"]),
        )
        if programs := welcome["programs"]:
            from ..programs.items import collect_in_guest

            collect_in_guest(config, programs)
        os.environ["LAB_NONCE"] = own.nonce or ""
        os.environ["LAB_TREE_SHA256"] = own.tree_sha256
        os.environ["LAB_KERNEL_RELEASE"] = own.release

    def _tell_of_a_hang(self, *_: object) -> None:
        """The host asks, and ends this process afterwards."""
        from .knows import answer

        answer(self.config)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out the lab's own tests, as the host does."""
        leave_out(self.config, items, "lab")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep what could not be collected: it is said together with what could."""
        if report.failed:
            self._collect_errors.append(f"{report.nodeid}: {report.longreprtext}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run what the host names, in its order, until it says stop."""
        _spare_the_collector()
        items = {item.nodeid: item for item in session.items}
        self._control.say(
            Said.COLLECTED,
            ids=[item.nodeid for item in session.items],
            errors=self._collect_errors,
        )
        while True:
            kind, message = self._control.listen()
            if kind == Told.STOP:
                return True
            item, following = items[message["id"]], items.get(message["next"])
            self._run(item, following)
            if session.shouldstop:
                raise session.Interrupted(str(session.shouldstop))

    def _run(self, item: pytest.Item, following: pytest.Item | None) -> None:
        self._reports = 0
        self._control.say(Said.START, id=item.nodeid)
        self.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        self._finished += 1
        self._control.say(Said.FINISH, id=item.nodeid, reports=self._reports)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A report goes home at once, so that a crash later loses nothing said before.

        Not so that a setup went well, which a crash leaves without a verdict anyway, and what a
        teardown came to, which the test's end follows at once.
        """
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self._reports += 1
        waits = report.when == "teardown" or (report.when == "setup" and report.passed)
        say = self._control.hold if waits else self._control.say
        say(Said.REPORT, id=report.nodeid, data=data)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_report_teststatus(self) -> Generator[None, tuple[str, Any, Any], object]:
        """No dot for a test that went well: the host shows the progress, and gets each as a
        message of its own."""
        category, *_ = yield
        return category, "", ""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> Generator[None, object, object]:
        """The last word; a fixture that fails only now must not go unheard.

        The host compares the status with the one the process really ends with: what fails after
        this (an unraisable exception, a plugin's shutdown) has no other way to be heard.
        """
        try:
            result = yield
        except BaseException as error:
            self._control.say(Said.TROUBLE, text=f"at the end of the session: {error!r}")
            raise
        self._control.say(
            Said.DONE,
            finished=self._finished,
            status=int(exitstatus),
            left=left(self.config.rootpath),
        )
        return result

    def pytest_internalerror(self, excrepr: object) -> None:
        """pytest itself broke: the host names the cause."""
        self._control.say(Said.TROUBLE, text=str(excrepr))

    @pytest.hookimpl(optionalhook=True)
    def pytest_timeout_set_timer(self) -> bool:
        """The host keeps the time, scaled to this guest's speed, which only it knows."""
        return True


def _spare_the_collector() -> None:
    """From here on the garbage collector looks only at what the tests make.

    The hundred thousand objects of pytest and its items live to the end of the session. Some tests
    ask for a collection, which would look at each: a second of an emulated processor, every time.
    Nor is one made here, for the hundred of them that are garbage: it took a fifth of a second.
    """
    gc.freeze()
    gc.enable()
