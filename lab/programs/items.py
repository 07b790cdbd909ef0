# SPDX-License-Identifier: MIT
"""Programs as pytest items: they stand beside pytest's own, are selected and reported alike.

The host collects them to know their ids and never runs one; the guest is told which there are, and
runs what the host names.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from .judgement import Judged, judge
from .running import CannotRun, Ended, in_guest, run
from .spec import ProgramTest
from .tap import State

PROPERTY = "lab-subtests"
"""The user property by which a guest tells what became of a program's subtests."""
MOST_TOLD = 300
"""So many subtests are told, those that failed first."""
LONGEST_NAME = 300
_HOST_S, _HOST_FACTOR = 10.0, 1.5
"""The host waits longer than the guest, which can say more about a program that does not end."""


class ProgramFailed(Exception):
    """A program's verdict; the message is a sentence."""


def judged_by(test: ProgramTest, ended: Ended) -> Judged:
    """The verdict of a program that ran: what the lab had to end has failed, whatever it said."""
    if ended.why:
        return Judged(State.FAILED, ended.why, tuple(ended.said.points))
    return judge(test.format, ended.status, ended.said, ended.last_line)


class ProgramItem(pytest.Item):
    """One program."""

    def __init__(self, *, test: ProgramTest, slowdown: float, tidy: bool, **more: Any) -> None:
        super().__init__(**more)
        self.test, self._slowdown, self._tidy = test, slowdown, tidy
        # In a guest the hash of the tree has just been proved.
        self._sent = _stamp(self.config.rootpath / test.path)

    @property
    def host_seconds(self) -> float:
        """The limit that the host puts on this test, before it is scaled to a guest's speed."""
        return _HOST_FACTOR * self.test.seconds + _HOST_S

    def runtest(self) -> None:
        """Run it. Raises ProgramFailed, and what pytest.skip() raises."""
        root = self.config.rootpath
        if (now := _stamp(root / self.test.path)) is not None and now != self._sent:
            raise ProgramFailed(f"{self.test.path} is not what was sent: something wrote to it")
        # In a guest this brings out what it prints as it is printed.
        streamed: Any = self.config.pluginmanager.get_plugin("lab-printed")
        try:
            with nullcontext(_no_one) if streamed is None else streamed.program() as heard:
                ended = run(
                    root / self.test.path,
                    directory=root / self.test.directory,
                    seconds=self.test.limit(self._slowdown),
                    tidy=self._tidy,
                    heard=heard,
                )
        except CannotRun as error:
            raise ProgramFailed(str(error)) from None
        for name, data in (("stdout", ended.stdout), ("stderr", ended.stderr)):
            if data:
                self.add_report_section("call", name, data.decode("utf-8", "backslashreplace"))
        judged = judged_by(self.test, ended)
        if judged.points:
            self.user_properties.append((PROPERTY, _told(judged)))
        if judged.state is State.SKIPPED:
            pytest.skip(judged.why)
        if judged.state is not State.PASSED:
            raise ProgramFailed(judged.why)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """A sentence is all there is to say: its output is in the report's sections."""
        if isinstance(excinfo.value, ProgramFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        """Where it is."""
        return self.config.rootpath / self.test.path, None, self.nodeid


class ProgramGroup(pytest.Collector):
    """The programs of one table."""

    def __init__(
        self, *, tests: Sequence[ProgramTest], slowdown: float, tidy: bool, **more: Any
    ) -> None:
        super().__init__(**more)
        self._tests, self._slowdown, self._tidy = tests, slowdown, tidy

    def collect(self) -> Iterable[ProgramItem]:
        """An item for each."""
        for test in self._tests:
            yield ProgramItem.from_parent(
                self,
                name=test.name.partition("/")[2],
                nodeid=test.name,
                test=test,
                slowdown=self._slowdown,
                tidy=self._tidy,
            )


class ProgramsSide:
    """Puts the programs behind what pytest collects."""

    def __init__(
        self, tests: Sequence[ProgramTest], *, slowdown: float = 1.0, tidy: bool = False
    ) -> None:
        self.tests = tests
        self._slowdown, self._tidy = slowdown, tidy

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """The session has a group more for each table."""
        report = yield
        if isinstance(collector, pytest.Session) and report.passed:
            groups = dict.fromkeys(test.group for test in self.tests)
            report.result = [
                *report.result,
                *(
                    ProgramGroup.from_parent(
                        collector,
                        name=group,
                        nodeid=group,
                        tests=[test for test in self.tests if test.group == group],
                        slowdown=self._slowdown,
                        tidy=self._tidy,
                    )
                    for group in groups
                ),
            ]
        return report


def collect_in_guest(config: pytest.Config, told: Mapping[str, Any]) -> None:
    """Collect the programs that the host told of."""
    tests = [ProgramTest.from_object(one) for one in told["tests"]]
    side = ProgramsSide(tests, slowdown=float(told["slowdown"]), tidy=in_guest())
    config.pluginmanager.register(side, "lab-programs")
    if told["alone"]:
        config.args.clear()


def split_arguments(
    arguments: Sequence[str], names: Iterable[str], base: Path
) -> tuple[list[str], list[str]]:
    """The arguments that name programs or groups of them, and pytest's own. What is there as a
    file is pytest's."""
    known = {name for one in names for name in (one, one.partition("/")[0])}
    ours = [word for word in arguments if word.rstrip("/") in known and not (base / word).exists()]
    return [word.rstrip("/") for word in ours], [word for word in arguments if word not in ours]


def chosen(
    tests: Sequence[ProgramTest], words: Iterable[str], directories: Iterable[Path], root: Path
) -> list[ProgramTest]:
    """The tests that these ids and groups name, and those whose programs are in a directory."""
    wanted, places = set(words), list(directories)
    return [
        test
        for test in tests
        if wanted & {test.name, test.group}
        or any((root / test.path).is_relative_to(place) for place in places)
    ]


def subtests_of(reports: Iterable[pytest.TestReport]) -> list[dict[str, str]]:
    """What a guest told of a program's subtests, taken out of its reports; what is not of that form
    is dropped."""
    found: list[dict[str, str]] = []
    for report in reports:
        told = [value for key, value in report.user_properties if key == PROPERTY]
        report.user_properties = [
            (key, value) for key, value in report.user_properties if key != PROPERTY
        ]
        if report.when == "call" and told and isinstance(told[0], list):
            found = [
                {"name": str(one[0]), "state": str(one[1]), "why": str(one[2])}
                for one in told[0]
                if isinstance(one, list) and len(one) == 3
            ]
    return found


def _no_one(data: bytes) -> None:
    """Hears nothing."""


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What changes with a file; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _told(judged: Judged) -> list[list[str]]:
    red = [point for point in judged.points if point.state is State.FAILED]
    others = [point for point in judged.points if point.state is not State.FAILED]
    return [
        [point.name[:LONGEST_NAME], point.state.value, point.why[:LONGEST_NAME]]
        for point in [*red, *others][:MOST_TOLD]
    ]
