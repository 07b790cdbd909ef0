# SPDX-License-Identifier: MIT
"""`lab sweep`: a directory of programs on several kernels, to see where a verdict changes.

The programs are copied into a little repository of their own and run there by `lab test`, one
kernel after the other. What has run is kept, so that a sweep that was stopped goes on, and a kernel
more can be asked.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from .. import cache, kernels, wishes
from .. import project as projects
from ..errors import COMMAND, KernelUnavailable, LabError, UsageError
from ..facts.kernel import Kernel
from ..facts.verdicts import Conclusion, ExitCode, Verdict, Weight, counted, weight
from ..programs.listing import programs_of
from ..programs.spec import DEFAULT_SECONDS
from ..project import Program, ProgramFormat, Project
from ..project.travel import NEVER
from . import compared
from .compared import Column
from .process import lab_test, leg_of

FILE = "sweep.json"
_GROUP = "programs"
"""Before the programs' names, in their ids; and their directory."""

EPILOG = """\
exit codes: 0 each program has a verdict on each kernel, whatever it is: a change is what is looked
for; 1 a kernel complained while no program ran; 2 usage; 3 something has no verdict: a kernel that
cannot be had, a lost guest; 130 interrupted."""


def add_command(commands: Any) -> None:
    """Add `sweep` to the subparsers of `lab`."""
    parser = commands.add_parser(
        "sweep",
        help="run a directory of programs on several kernels and see where a verdict changes",
        usage=f"{COMMAND} sweep --programs DIR --kernel NAME --kernel NAME... [options]",
        description="Runs each executable in a directory on each kernel, as those of "
        "[[tool.lab.programs]] are run, and lists the programs whose verdict is not the same on "
        "all. A sweep that was stopped goes on.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--programs", type=Path, required=True, metavar="DIR", help="where the executables are"
    )
    parser.add_argument(
        "--kernel",
        action="append",
        metavar="NAME",
        help="as of `test`; at least two are compared; without it, those of the table",
    )
    parser.add_argument(
        "--format",
        choices=[one.value for one in ProgramFormat if one is not ProgramFormat.KSELFTEST],
        default=ProgramFormat.AUTO.value,
        help="how the programs say what they found (auto)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_SECONDS,
        metavar="SECONDS",
        help=f"of each program, on this machine ({DEFAULT_SECONDS:g})",
    )
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="run each N times")
    parser.add_argument(
        "--guests", type=int, metavar="N", help="this many at once, as --lab-guests"
    )
    parser.add_argument("--all", action="store_true", help="a row for every program")
    parser.add_argument("--fresh", action="store_true", help="run also what is known")
    parser.add_argument("--results", type=Path, metavar="DIR", help="instead of lab-results")
    guest = parser.add_argument_group("what the guests have, as of `test`")
    for key, option in wishes.OPTIONS.items():
        several = {} if key in ("cpus", "memory") else {"action": "append"}
        guest.add_argument(f"--{option}", dest=key, metavar=option.upper(), **several)


@dataclass(frozen=True, slots=True)
class Asked:
    """A kernel, and the name it was asked for by."""

    name: str
    kernel: Kernel

    @property
    def argument(self) -> str:
        """What names this very kernel to `lab test`: a kernel of one's own has no name but its
        path."""
        return self.name if "/" in self.name else self.kernel.package


@dataclass(slots=True)
class Sweep:
    """The same programs on several kernels."""

    tree: Path
    """The little repository with the programs."""
    results: Path
    names: Sequence[str]
    """Of the programs."""
    words: Sequence[str] = ()
    """More arguments for `lab test`."""
    fresh: bool = False
    missing: list[str] = field(default_factory=list)
    """A sentence for each kernel that cannot be had."""

    def run(self, asked: Sequence[Asked], say: Callable[[str], None]) -> list[Column]:
        """The column of each kernel, oldest first. Raises LabError."""
        columns = []
        for number, one in enumerate(asked, 1):
            head = f"[{number}/{len(asked)}] {one.kernel.upstream} ({one.kernel.package})"
            begun = time.monotonic()
            where = self.results / one.kernel.package
            column = None if self.fresh else self._known(where, one)
            how = "known"
            if column is None:
                shutil.rmtree(where, ignore_errors=True)
                column = self._column(
                    lab_test(self.tree, where, "--kernel", one.argument, *self.words, _GROUP), one
                )
                how = f"{time.monotonic() - begun:.0f} s"
            say(f"{head}: {how}: {counted(cell.verdict for cell in column.cells.values())}")
            columns.append(column)
        return compared.in_order(columns)

    def _column(self, said: dict[str, Any] | str, one: Asked) -> Column:
        if isinstance(said, str):
            nothing = {name: compared.Cell(Verdict.NEVER_RAN, said) for name in self.names}
            return Column(one.kernel, one.name, nothing, problems=[said])
        return compared.column_of(said, one.kernel, one.name, _GROUP, self.names)

    def _known(self, where: Path, one: Asked) -> Column | None:
        """What an earlier sweep of the same programs has of this kernel, if it has all."""
        path = where / "latest/results.json"
        try:
            column = self._column(leg_of(path), one)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return column if column.whole else None


def run(arguments: argparse.Namespace, say: Callable[[str], None]) -> Conclusion:
    """Run the command: what it concluded. Raises LabError and KeyboardInterrupt."""
    for name, value, least in (
        ("--timeout", arguments.timeout, 0.001),
        ("--repeat", arguments.repeat, 1),
    ):
        if not least <= value < 1e7:
            raise UsageError(f"{name} is {value:g}, expected a number of at least {least:g}")
    project = projects.here()
    given = {key: getattr(arguments, key) for key in wishes.OPTIONS}
    wished = wishes.from_options(given).over(project.guest)
    directory = arguments.programs.resolve()
    program = Program(_GROUP, _GROUP, (), ProgramFormat(arguments.format), arguments.timeout)
    names = names_in(directory, arguments.programs)
    missing: list[str] = []
    asked = chosen(arguments.kernel, project, missing)
    words = wished.options()
    if arguments.repeat > 1:
        words.append(f"--repeat={arguments.repeat}")
    key = _key(directory, [program.format, program.timeout_s, *words])
    if arguments.guests is not None:
        words.append(f"--lab-guests={arguments.guests}")
    results = (arguments.results or project.root / "lab-results").resolve() / f"sweep-{key}"
    waiting = partial(say, "lab: the same sweep is under way: waiting for its end")
    with cache.locked(f"sweep-{key}", waiting=waiting):
        tree = results / "tree"
        lay_out(tree, directory, program, project, [one.argument for one in asked])
        say(f"lab: {len(names)} programs on {len(asked)} kernels, results in {results}")
        sweep = Sweep(tree, results, names, words, arguments.fresh, missing)
        columns = sweep.run(asked, say)
    for line in compared.told(columns, every=arguments.all):
        say(line)
    conclusion = concluded(columns, missing)
    whole = compared.to_object(columns, str(arguments.programs))
    whole |= {"missing": missing, "exit": {"code": int(conclusion.code), "why": conclusion.why}}
    (results / FILE).write_text(json.dumps(whole, indent=1) + "\n")
    say(f"lab: {results / FILE} has every verdict")
    return conclusion


def names_in(directory: Path, shown: Path) -> list[str]:
    """The executables of a directory. Raises UsageError where there are none."""
    if not directory.is_dir():
        raise UsageError(f"--programs {shown} is no directory", hint="name where executables are")
    here = Project(root=directory.parent, programs=(Program(_GROUP, directory.name),))
    try:
        return [test.name.removeprefix(f"{_GROUP}/") for test in programs_of(here)]
    except UsageError as error:
        what = error.message.partition(": ")[2] or error.message
        raise UsageError(f"--programs {shown}: {what}", hint=error.hint) from error


def chosen(names: Sequence[str] | None, project: Project, missing: list[str]) -> list[Asked]:
    """The kernels that the names mean, each once, oldest first; a sentence in `missing` for each
    that cannot be had.

    Raises UsageError for a name that means none, and for fewer than two kernels.
    """
    if names is None and not project.kernels:
        raise UsageError("no kernel is named", hint="--kernel 6.1 --kernel 6.12")
    words = [kernels.ALL] if names is None else [w for name in names for w in kernels.split(name)]
    found: dict[tuple[str, str], Asked] = {}
    for name in kernels.matching(words, table=project.kernels):
        try:
            kernel = kernels.resolve(name)
        except KernelUnavailable as error:
            missing.append(f"{name} cannot be had: {error}")
            continue
        found.setdefault((kernel.package, kernel.release), Asked(name, kernel))
    if len(found) > 1:
        columns = compared.in_order(Column(one.kernel, one.name) for one in found.values())
        return [found[one.kernel.package, one.kernel.release] for one in columns]
    if missing:
        raise LabError(f"{missing[0]}: nothing is left to compare")
    only = " and ".join(dict.fromkeys(words)) or "nothing"
    means = "".join(f", which means {one.kernel.package}" for one in found.values())
    raise UsageError(
        f"--kernel names {only}{means}: there is nothing to compare", hint="name two kernels"
    )


def lay_out(
    tree: Path, directory: Path, program: Program, project: Project, names: Sequence[str]
) -> None:
    """Make the little repository: the programs, and a table with what the guests of the table here
    have. Raises LabError."""
    programs = tree / _GROUP
    try:
        tree.mkdir(parents=True, exist_ok=True)
        if not programs.exists():
            fresh = tree / f".{_GROUP}.{os.getpid()}"
            # A link is copied as what it leads to: a guest may not have it.
            shutil.copytree(directory, fresh, ignore=lambda _, found: NEVER.intersection(found))
            fresh.replace(programs)
        values: dict[str, Any] = {
            "kernels": list(names),
            "include": ["lab.toml"],
            "products": [f"{_GROUP}/**"],
            "plugins": [],
            "environment-exclude": list(project.environment_exclude),
        }
        for key, name in (("lock", project.lock), ("dmesg-allow", project.dmesg_allow)):
            if name:
                shutil.copyfile(project.path(name), tree / Path(name).name)
                values[key] = Path(name).name
        table = {"name": _GROUP, "directory": _GROUP, "format": program.format.value}
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        lines += ["", "[[programs]]", *(f"{k} = {json.dumps(v)}" for k, v in table.items())]
        lines += [f"timeout = {program.timeout_s}", ""]
        (tree / "lab.toml").write_text("\n".join(lines))
    except (OSError, shutil.Error) as error:
        raise LabError(f"{directory} cannot be copied to {tree}: {error}") from error


def _key(directory: Path, how: Sequence[Any]) -> str:
    """What stays the same as long as the programs and how they are run do."""
    whole = hashlib.sha256(json.dumps(list(how)).encode())
    for path in sorted(directory.rglob("*")):
        inside = path.relative_to(directory)
        if path.is_file() and not NEVER.intersection(inside.parts):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            whole.update(f"{inside}\0{os.access(path, os.X_OK)}\0{content}\n".encode())
    return whole.hexdigest()[:12]


def concluded(columns: Sequence[Column], missing: Sequence[str]) -> Conclusion:
    """The exit code: a change is no failure, what has no verdict is never green."""
    rows = compared.rows_of(columns)
    changing, unsteady = sum(r.changes for r in rows), sum(r.unsteady for r in rows)
    found = f"{changing} of {len(rows)} programs change between {len(columns)} kernels"
    found += f", {unsteady} are unsteady" if unsteady else ""
    heads = compared.heads(columns)
    faults = [f"{head}: {one}" for head, c in zip(heads, columns, strict=True) for one in c.faults]
    if faults:
        return Conclusion(ExitCode.DISPROVED, f"{_first(faults)} ({found})")
    problems = [*missing]
    problems += [f"{h}: {p}" for h, c in zip(heads, columns, strict=True) for p in c.problems]
    if problems:
        return Conclusion(ExitCode.NOT_PROVED, f"{_first(problems)} ({found})")
    cells = [cell for column in columns for cell in column.cells.values()]
    if not any(weight(cell.verdict) is Weight.PROVES for cell in cells):
        return Conclusion(ExitCode.NOT_PROVED, f"nothing passed on any of {len(columns)} kernels")
    return Conclusion(ExitCode.PROVED, found, "measured")


def _first(sentences: Sequence[str]) -> str:
    more = f", and {len(sentences) - 1} more" if len(sentences) > 1 else ""
    return f"{sentences[0]}{more}"
