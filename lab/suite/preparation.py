# SPDX-License-Identifier: MIT
"""What a run in guests begins with: its kernels, their promises, and where its results go."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from ..errors import LabError, UsageError
from ..facts.kernel import series_of
from ..facts.verdicts import Tally, conclude
from ..remote import sending, tree
from ..remote.losses import RunOver
from ..remote.process import TREE
from ..report import content, markdown, page
from ..report.results import new_directory, point_latest
from ..rules import dmesg
from ..vm import launcher_named
from ..wishes import Wishes
from . import at_once, hold, home, issues, narrowing, options, selection, times
from .column import Column
from .lanes import WORTH_A_GUEST, Lanes, Work
from .plan import Plan
from .programs import HostPrograms
from .promises import Promises
from .stash import CONCLUSION, PROJECT
from .wished import wishes_of

if TYPE_CHECKING:
    from ..facts.kernel import Kernel

MISSING_VARIABLE = "ALLOW_MISSING"
"""Names, separated by spaces or commas, of the kernels without which a run of several counts."""


class Preparation:
    """Prepares a run and its kernels; says in the header what is about to be asked of them."""

    def __init__(self, config: pytest.Config, names: Sequence[str]) -> None:
        """`names` are what the kernels are asked for by.

        Raises pytest.UsageError, and ends pytest where no kernel could be asked anything.
        """
        options.check(config)
        selection.check(config)
        hold.check(config)
        # On a read-only checkout --lf has no memory; that is no reason to lose the verdicts of a
        # run whose settings make errors of warnings.
        config.addinivalue_line("filterwarnings", "default::pytest.PytestCacheWarning")
        self.config = config
        self.project = project = config.stash[PROJECT]
        self.missing: dict[str, str] = {}
        """Why a kernel that was asked for is not in the run, by its name."""
        self.may_miss = [w for w in re.split(r"[\s,]+", os.environ.get(MISSING_VARIABLE, "")) if w]
        """The names of those that may be missing."""
        self.notes: list[str] = []
        self.bound = ""
        """Why there are fewer guests at once than were asked for; empty if there are not."""
        try:
            self.launcher = launcher_named(config.getoption("lab_launcher"))
            self.wishes = wishes_of(config)
            resolved = self._resolve(names)
            self._note_not_asked_for(names, resolved.values())
            self.programs = HostPrograms(config, project)
            found = [
                (
                    name,
                    kernel,
                    Promises(project, kernel, config.getoption("lab_as")),
                    config.hook.pytest_lab_guests(config=config, kernel=kernel),
                )
                for name, kernel in resolved.items()
            ]
        except UsageError as error:
            config.stash[CONCLUSION] = conclude(Tally({}, usage=str(error)))
            raise pytest.UsageError(str(error)) from error
        except LabError as error:
            _give_up_before(config, names, error)
        self.identity: Mapping[str, str] = {}
        """The hashes of what the guests are sent; empty before that is packed."""
        limit = config.getoption("lab_timeout")
        if limit is not None and not limit > 0:
            raise pytest.UsageError(f"--lab-timeout {limit}: a test needs more than 0 seconds")
        self._guests = at_once.asked(config)
        self.times = selection.times(config)
        """How often the selection is run on each kernel."""
        base = _results_base(config)
        by = f"-{self.launcher.name}" if self.launcher.words else ""
        cells = _cells((name, promises.cell) for name, _, promises, _ in found)
        files = [re.sub(r"[^\w.+~-]+", "-", cell) + by for cell in cells]
        self.alone = len(names) == 1
        """Whether the run is on one kernel."""
        try:
            one = files[0] if self.alone else f"{len(cells)}-kernels"
            self.results = new_directory(base, one)
            places = [self.results] if self.alone else [self.results / file for file in files]
            for place in places:
                place.mkdir(exist_ok=True)
        except OSError as error:
            _give_up_before(config, names, LabError(f"{error.filename}: {error.strerror}"))
        except LabError as error:
            _give_up_before(config, names, error)
        self.columns = [
            Column(
                config,
                project,
                asked=name,
                kernel=kernel,
                promises=promises,
                lab=lab,
                launcher=self.launcher,
                wishes=self.wishes,
                results=place,
                cell=cell,
                alone=self.alone,
                times=self.times,
            )
            for (name, kernel, promises, lab), place, cell in zip(found, places, cells, strict=True)
        ]
        self.asked = tuple(names)
        """The names of the kernels that were asked for, those that cannot be had included."""
        if getattr(config.option, "xmlpath", None) is None and not config.option.collectonly:
            config.option.xmlpath = str(self.results / "junit.xml")

    def _note_not_asked_for(self, names: Sequence[str], found: Iterable[Kernel]) -> None:
        """Say which kernels may be missing that nobody asked for: it may be a slip. The variable
        may be set for many runs, so it is no more than that."""
        series = {series_of(name) for name in names} | {kernel.series for kernel in found}
        other = [name for name in self.may_miss if name not in series.union(names)]
        if other and len(names) > 1:
            self.notes.append(
                f"{MISSING_VARIABLE} names {', '.join(other)}, which is no kernel of this run"
            )

    def _resolve(self, names: Sequence[str]) -> dict[str, Kernel]:
        """The kernels by the names they were asked for, each once. Of several kernels some may not
        be had. Raises UsageError, and LabError where there is none."""
        found: dict[str, Kernel] = {}
        for name in dict.fromkeys(names):
            try:
                kernel = self.config.hook.pytest_lab_resolve(config=self.config, name=name)
            except UsageError:
                raise
            except LabError as error:
                if len(names) == 1:
                    raise
                self.missing[name] = str(error)
                continue
            for before, other in found.items():
                if other == kernel:
                    self.notes.append(
                        f"{before} and {name} are one kernel, {kernel.package}, and it runs once"
                    )
                    break
            else:
                found[name] = kernel
        if not found:
            whys = "; ".join(self.missing.values())
            raise LabError(f"none of the kernels {', '.join(names)} can be had: {whys}")
        return found

    def pytest_report_header(self) -> list[str]:
        """What is about to be asked of which kernels."""
        lines = []
        for column in self.columns:
            kernel = column.kernel
            lock = "locked" if kernel.locked else "unlocked"
            lines.append(
                f"lab: kernel {column.cell} ({kernel.package} from {kernel.source}, {lock}, "
                f"verified by {kernel.verified_by})"
            )
        lines += [f"lab: kernel {name} is missing: {why}" for name, why in self.missing.items()]
        lines += [f"lab: {note}" for note in self.notes]
        lines += [f"lab: booted {self.launcher.words}"] if self.launcher.words else []
        lines += [] if self.config.option.collectonly else [f"lab: results in {self.results}"]
        return lines

    def lanes(
        self,
        selected: Sequence[str],
        own_wishes: Mapping[str, Wishes],
        test_seconds: Callable[[str, float], float],
        on_host: frozenset[str],
    ) -> Lanes | None:
        """The guests that these tests will run in, none of them booted yet; the others as in
        `Plan`. None where no kernel's guests could be prepared, which their columns know. Raises
        LabError."""
        sent = sending.of(self.programs.with_files(self.project))
        tree_sha256, extension_sha256 = sent.hashes()
        compiled = sent.bytecode()
        packed = sent.pack({**compiled, **home.examples(self.project.root)})
        self.identity = {
            "tree_sha256": tree_sha256,
            "extension_sha256": extension_sha256,
            "bytecode_sha256": tree.hashes(compiled)[0],
        }
        search_path = sending.search_path(self.project, TREE)
        known = times.known(self.config)
        for column in self.columns:
            plan = Plan(
                kernel=column.kernel,
                selected=selected,
                on_host=on_host,
                subset=selection.looks_in_cache(self.config),
                arguments=selection.guest_arguments(self.config),
                tar=packed,
                **self.identity,
                environment={
                    "PYTHONPATH": search_path,
                    **options.environment(self.config),
                    **column.promises.environment,
                },
                programs=self.programs.to_object(),
                probe=sending.command(self.project.probe) if self.project.probe else (),
                setup=sending.command(self.project.setup) if self.project.setup else (),
                allowed=dmesg.of(self.project),
                wishes=self.wishes,
                own_wishes=own_wishes,
                root=self.config.rootpath,
                results=column.results,
                test_seconds=test_seconds,
                times=self.times,
                seconds=known.get(column.cell, {}),
                keep_order=selection.order_was_asked_for(self.config),
                dump=self.config.getoption("lab_dump"),
            )
            column.work = Work(column.lab, plan, label="" if self.alone else column.cell)
        # The short ones fill what is left.
        columns = sorted(
            self.columns,
            key=lambda column: -times.estimated(selected, known.get(column.cell, {})),
        )
        ready = self._first_ready(columns)
        if ready is None:
            return None
        works = [column.work for column in columns if column.over is None and column.work]
        worth = len(works) * (1 + self.times * len(selected) // WORTH_A_GUEST)
        guests = min(ready.lab.side_by_side(own_wishes.values()), worth)
        if self._guests is not None:
            guests, self.bound = at_once.bounded(
                self._guests, ready.lab.at_most(own_wishes.values())
            )
        return Lanes(works, guests=guests)

    def _first_ready(self, columns: Sequence[Column]) -> Column | None:
        """A column whose guests are prepared. The lanes prepare the others' when they come to them:
        a kernel may have to be fetched, and then there are tests to run meanwhile."""
        for column in columns:
            try:
                column.lab.prepare(column.results)
            except LabError as error:
                column.give_up(RunOver(error.message, hint=error.hint))
            else:
                return column
        return None

    def may_be_missing(self, name: str) -> bool:
        """Whether a run without this kernel, or its series, still counts."""
        return name in self.may_miss or series_of(name) in self.may_miss

    def narrowed(self) -> list[str]:
        """What this run was narrowed by, for the line that repeats it; not what the repository's
        settings leave out of each run, nor what depends on the run before."""
        named = self.config.args_source is pytest.Config.ArgsSource.ARGS
        paths = [*self.config.args, *self.programs.words] if named else ()
        return [*narrowing.options(self.config), *paths]

    def selection_key(self) -> str:
        """The same for each run of the same tests on the same kernels in the same guests."""
        return selection.key(
            self.config,
            kernels=sorted(self.asked),
            launcher=self.launcher.name,
            wishes=self.wishes.options(),
            programs=list(self.programs.words),
        )

    def whole(self) -> bool:
        """Whether the run has all tests that a run can have."""
        return not self.narrowed() and not selection.looks_in_cache(self.config)

    def wanted(self) -> tuple[int, ...]:
        """The issues that must be proved: only a whole run can be blamed for a hole."""
        option = self.config.option
        if option.keyword or option.markexpr or not self.whole() or not self.project.issues:
            return ()
        return issues.work_is_in(self.project.path(self.project.issues))

    def discard_results(self) -> None:
        """Nothing ran, so there is nothing to keep."""
        for place in (*(column.results for column in self.columns), self.results):
            with suppress(OSError):
                place.rmdir()


def _cells(kernels: Iterable[tuple[str, str]]) -> list[str]:
    """The names of the kernels in reports, given by what each was asked for and what it would be
    called alone: one upstream version may be packaged, or built, more than once."""
    found: dict[str, None] = {}
    for asked, cell in kernels:
        found[f"{cell} ({asked})" if cell in found else cell] = None
    return list(found)


def _give_up_before(config: pytest.Config, names: Sequence[str], error: LabError) -> NoReturn:
    """End a run in which nothing could be asked of any kernel; its results say so where they can
    be written."""
    conclusion = conclude(Tally({}, problems=[str(error)]))
    config.stash[CONCLUSION] = conclusion
    if not config.option.collectonly:
        with suppress(LabError, OSError):
            shown = names[0] if len(names) == 1 else f"{len(names)}-kernels"
            results = new_directory(_results_base(config), re.sub(r"[^\w.+~-]+", "-", shown))
            legs = [content.leg_not_begun(name, conclusion) for name in names]
            whole = content.content(legs, conclusion, 0.0)
            content.write(results, whole)
            markdown.write(results, whole)
            page.made(results, whole)
            point_latest(results)
    pytest.exit(str(error), returncode=int(conclusion.code))


def _results_base(config: pytest.Config) -> Path:
    return Path(config.getoption("lab_results") or config.rootpath / "lab-results")
