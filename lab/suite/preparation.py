# SPDX-License-Identifier: MIT
"""What a run in guests begins with: its kernel, what that is promised, and where its results go."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

from ..errors import LabError, UsageError
from ..facts.verdicts import Tally, conclude
from ..remote import sending, tree
from ..remote.process import TREE
from ..report import content, markdown
from ..report.results import new_directory, point_latest
from ..rules import dmesg
from ..vm import launcher_named
from ..wishes import Wishes
from . import home, issues, options, selection
from .lanes import Lanes
from .plan import Plan
from .programs import HostPrograms
from .promises import Promises
from .stash import CONCLUSION, PROJECT
from .wished import wishes_of

WORTH_A_GUEST = 50
"""With so many tests more, one more guest is up and through its share before one alone would be
through all of them."""


class Preparation:
    """Prepares a run and its kernel; says in the header what is about to be asked of it."""

    def __init__(self, config: pytest.Config, name: str) -> None:
        """`name` is what the kernel is asked for by.

        Raises pytest.UsageError, and ends pytest where no kernel could be asked anything.
        """
        options.check(config)
        selection.check(config)
        # On a read-only checkout --lf has no memory; that is no reason to lose the verdicts of a
        # run whose settings make errors of warnings.
        config.addinivalue_line("filterwarnings", "default::pytest.PytestCacheWarning")
        self.project = project = config.stash[PROJECT]
        try:
            self.launcher = launcher_named(config.getoption("lab_launcher"))
            self.wishes = wishes_of(config)
            self.kernel = config.hook.pytest_lab_resolve(config=config, name=name)
            self.programs = HostPrograms(config, project)
            self.promises = Promises(project, self.kernel, config.getoption("lab_as"))
            self.lab = config.hook.pytest_lab_guests(config=config, kernel=self.kernel)
        except UsageError as error:
            config.stash[CONCLUSION] = conclude(Tally({}, usage=str(error)))
            raise pytest.UsageError(str(error)) from error
        except LabError as error:
            _give_up_before(config, name, error)
        self.config, self.name = config, name
        self.identity: Mapping[str, str] = {}
        """The hashes of what the guests are sent; empty before that is packed."""
        limit = config.getoption("lab_timeout")
        if limit is not None and not limit > 0:
            raise pytest.UsageError(f"--lab-timeout {limit}: a test needs more than 0 seconds")
        guests = config.getoption("lab_guests")
        if guests is not None and guests < 1:
            raise pytest.UsageError(f"--lab-guests {guests}: tests need at least one guest")
        base = _results_base(config)
        plays = f"-as-{self.promises.plays}" if self.promises.plays else ""
        by = f"-{self.launcher.name}" if self.launcher.words else ""
        try:
            self.results = new_directory(base, f"{self.kernel.upstream}{plays}{by}")
        except LabError as error:
            _give_up_before(config, name, error)
        if getattr(config.option, "xmlpath", None) is None and not config.option.collectonly:
            config.option.xmlpath = str(self.results / "junit.xml")

    def pytest_report_header(self) -> list[str]:
        """What is about to be asked of which kernel."""
        kernel = self.kernel
        lock = "locked" if kernel.locked else "unlocked"
        return [
            f"lab: kernel {self.promises.cell} ({kernel.package} from {kernel.source}, {lock}, "
            f"verified by {kernel.verified_by})",
            *([f"lab: booted {self.launcher.words}"] if self.launcher.words else ()),
            *([] if self.config.option.collectonly else [f"lab: results in {self.results}"]),
        ]

    def lanes(
        self,
        selected: Sequence[str],
        own_wishes: Mapping[str, Wishes],
        test_seconds: Callable[[str, float], float],
        on_host: frozenset[str],
    ) -> Lanes:
        """The guests that these tests will run in, none of them booted yet; the others as in
        `Plan`. Raises LabError."""
        self.lab.prepare(self.results)
        sent = sending.of(self.programs.with_files(self.project))
        tree_sha256, extension_sha256 = sent.hashes()
        compiled = sent.bytecode()
        self.identity = {
            "tree_sha256": tree_sha256,
            "extension_sha256": extension_sha256,
            "bytecode_sha256": tree.hashes(compiled)[0],
        }
        search_path = sending.search_path(self.project, TREE)
        plan = Plan(
            kernel=self.kernel,
            selected=selected,
            on_host=on_host,
            subset=selection.looks_in_cache(self.config),
            arguments=selection.guest_arguments(self.config),
            tar=sent.pack({**compiled, **home.examples(self.project.root)}),
            tree_sha256=tree_sha256,
            extension_sha256=extension_sha256,
            bytecode_sha256=tree.hashes(compiled)[0],
            environment={
                "PYTHONPATH": search_path,
                **options.environment(self.config),
                **self.promises.environment,
            },
            programs=self.programs.to_object(),
            probe=sending.command(self.project.probe) if self.project.probe else (),
            setup=sending.command(self.project.setup) if self.project.setup else (),
            allowed=dmesg.of(self.project),
            wishes=self.wishes,
            own_wishes=own_wishes,
            root=self.config.rootpath,
            results=self.results,
            test_seconds=test_seconds,
        )
        asked = self.config.getoption("lab_guests")
        guests = asked or min(self.lab.side_by_side(), 1 + len(selected) // WORTH_A_GUEST)
        return Lanes(self.lab, plan, guests=guests)

    def properties(self) -> list[tuple[str, object]]:
        """Whose a report is, for JUnit, where one kernel's file looks like another's."""
        return [("kernel", self.promises.cell), ("launcher", self.launcher.name)]

    def narrowed(self) -> list[str]:
        """What this run was narrowed by, for the line that repeats it."""
        option = self.config.option
        words: list[str] = []
        for flag, value in (("-k", option.keyword), ("-m", option.markexpr)):
            words += [flag, value] if value else []
        named = self.config.args_source is pytest.Config.ArgsSource.ARGS
        return [*words, *([*self.config.args, *self.programs.words] if named else ())]

    def wanted(self) -> tuple[int, ...]:
        """The issues that must be proved: only a whole run can be blamed for a hole."""
        option = self.config.option
        narrowed = option.keyword or option.markexpr or selection.looks_in_cache(self.config)
        whole = self.config.args_source is not pytest.Config.ArgsSource.ARGS
        if not whole or narrowed or not self.project.issues:
            return ()
        return issues.work_is_in(self.project.path(self.project.issues))

    def discard_results(self) -> None:
        """Nothing ran, so there is nothing to keep."""
        with suppress(OSError):
            self.results.rmdir()


def _give_up_before(config: pytest.Config, name: str, error: LabError) -> NoReturn:
    """End a run in which nothing could be asked of any kernel; its results say so where they can
    be written."""
    conclusion = conclude(Tally({}, problems=[str(error)]))
    config.stash[CONCLUSION] = conclusion
    if not config.option.collectonly:
        with suppress(LabError, OSError):
            results = new_directory(_results_base(config), re.sub(r"[^\w.+~-]+", "-", name))
            leg = content.leg_not_begun(name, conclusion)
            whole = content.content([leg], conclusion, 0.0)
            content.write(results, whole)
            markdown.write(results, whole)
            point_latest(results)
    pytest.exit(str(error), returncode=int(conclusion.code))


def _results_base(config: pytest.Config) -> Path:
    return Path(config.getoption("lab_results") or config.rootpath / "lab-results")
