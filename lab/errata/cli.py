# SPDX-License-Identifier: MIT
"""`python -m lab errata` and `python -m lab bisect`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LabError, UsageError
from ..facts.kernel import Kernel, version_key
from ..facts.verdicts import Conclusion, ExitCode
from ..rules import errata as catalogue
from . import lists, table

if TYPE_CHECKING:
    from .sweep import Swept

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/errata.md"
EVERY, MEASURED = "every", "measured"
_UNASKED = frozenset({"errata", "bisect"})

EPILOG = """\
exit codes: 0 every release asked has been decided and the lists do not contradict; 1 a reproducer
failed, a list contradicts, or --check found the page changed; 2 usage; 3 not everything decided;
130 interrupted."""


def add_commands(commands: Any) -> None:
    """Add both to the subparsers of `python -m lab`."""
    errata = commands.add_parser(
        "errata",
        help="measure known defects over released kernels",
        description="Boots releases, runs each erratum's reproducer and writes docs/errata.md. "
        "What was measured is kept in lab-results/errata, so a stopped sweep goes on.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    errata.add_argument(
        "--kernel",
        action="append",
        metavar="NAME",
        help=f"a release; '{EVERY}' that the sources offer (the default); of those, the ones "
        f"'{MEASURED}' already, to write the page of a sweep that was stopped; repeatable",
    )
    errata.add_argument("--fresh", action="store_true", help="measure also what is known")
    errata.add_argument(
        "--check",
        action="store_true",
        help="write nothing below docs/ or lab/: exit 1 if the page would change",
    )
    errata.add_argument(
        "--update", action="store_true", help="put what was measured into errata.toml"
    )
    errata.add_argument(
        "--results",
        type=Path,
        default=ROOT / "lab-results/errata",
        metavar="DIR",
        help="where measurements and consoles go, instead of lab-results/errata",
    )
    bisect = commands.add_parser(
        "bisect",
        help="find between which releases a test's verdict changes",
        description="Tries a test on released kernels, fetched as needed, and halves the distance "
        "between the two named ones. What errata.toml lists does not count.",
        allow_abbrev=False,
    )
    for side in ("good", "bad"):
        bisect.add_argument(f"--{side}", required=True, metavar="RELEASE")
    bisect.add_argument("node", metavar="NODEID", help="tests/...py::test_it")


def handles(command: str) -> bool:
    """Whether this module runs the command."""
    return command in _UNASKED


def run(arguments: argparse.Namespace) -> Conclusion:
    """Run the command: what it concluded. Raises LabError and KeyboardInterrupt."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return _bisect(arguments) if arguments.command == "bisect" else _errata(arguments)


def _say(text: str) -> None:
    print(text, flush=True)


def _errata(arguments: argparse.Namespace) -> Conclusion:
    from .. import cache
    from ..remote import tree
    from .program import programs
    from .state import State
    from .store import Cellar
    from .sweep import Job, evidence, sweep

    errata = catalogue.read()
    names = arguments.kernel or [EVERY]
    contents = tree.contents(ROOT)
    with cache.scratch() as directory, tree.bytecode_kept(directory):
        tar = tree.pack(ROOT, contents | tree.bytecode(ROOT, contents))
    state = State(arguments.results / "measured.json", programs(ROOT, errata.reproducers))
    kernels = chosen(names, state.whole)
    unfinished = chosen([MEASURED], state.begun) if MEASURED in names else []
    job = Job(
        catalogue=errata,
        kernels=kernels,
        tar=tar,
        results=arguments.results,
        fresh=arguments.fresh,
    )
    _say(f"lab: {len(errata.errata)} errata on {len(kernels)} releases")
    swept = sweep(job, Cellar(), state, _say)
    if unfinished:
        swept.problems.append(
            f"{len(unfinished)} releases have something that is not decided, or was by another "
            f"reproducer: --kernel {EVERY} measures that"
        )
    for row in table.in_order(swept.measured):
        for id, finding in evidence(row):
            _say(f"{row.package}: {id}: {finding.seen or 'not decided'}: {finding.evidence}")
    told = lists.told(lists.differences(errata, swept.measured))
    for sentence in told:
        _say(f"lists: {sentence}")
    if told and not arguments.update:
        _say("lab: --update puts what was measured into errata.toml")
    if arguments.update and not arguments.check:
        text = lists.updated(catalogue.ERRATA.read_text(), errata, swept.measured)
        catalogue.ERRATA.write_text(text)
        _say(f"lab: {catalogue.ERRATA.name} has the lists as measured; review the diff")
    whole = bool({EVERY, MEASURED}.intersection(names))
    page = table.render(errata, swept.measured)
    changed = whole and (not PAGE.exists() or PAGE.read_text() != page)
    if whole and not arguments.check and swept.measured:
        PAGE.write_text(page)
        _say(f"lab: docs/errata.md {'is new' if changed else 'is what it was'}")
    if not whole:
        _say(f"lab: docs/errata.md is written by --kernel {EVERY} or {MEASURED}")
    return _concluded(swept, changed=changed and arguments.check)


def chosen(names: Sequence[str], measured: Callable[[Kernel], bool]) -> list[Kernel]:
    """The kernels meant, each once, oldest first; `measured` tells which are known already.

    Raises UsageError and KernelUnavailable.
    """
    from .. import kernels

    found: dict[tuple[str, str], Kernel] = {}
    for name in names:
        if name in (EVERY, MEASURED):
            offered = kernels.offered()
            some = [kernel for kernel in offered if name == EVERY or measured(kernel)]
        else:
            some = [kernels.resolve(name)]
        found |= {(kernel.package, kernel.release): kernel for kernel in some}
    return sorted(
        found.values(), key=lambda k: (version_key(k.upstream), version_key(k.package), k.release)
    )


def _concluded(swept: Swept, *, changed: bool) -> Conclusion:
    decided = f"{len(swept.measured)} releases measured"
    if swept.faults:
        more = f" and {len(swept.faults) - 1} more" if len(swept.faults) > 1 else ""
        return Conclusion(ExitCode.DISPROVED, f"{swept.faults[0]}{more} ({decided})")
    if swept.problems:
        more = f" and {len(swept.problems) - 1} more" if len(swept.problems) > 1 else ""
        return Conclusion(ExitCode.NOT_PROVED, f"{swept.problems[0]}{more} ({decided})")
    if not swept.measured:
        return Conclusion(ExitCode.NOT_PROVED, "nothing was measured")
    if changed:
        return Conclusion(
            ExitCode.DISPROVED, f"docs/errata.md is not what was measured ({decided})"
        )
    return Conclusion(ExitCode.PROVED, decided)


def _bisect(arguments: argparse.Namespace) -> Conclusion:
    from .. import kernels
    from ..report.results import new_directory
    from .bisect import between, bisect
    from .trial import Trial

    if "::" not in arguments.node or not (ROOT / arguments.node.split("::")[0]).is_file():
        raise UsageError(
            f"{arguments.node!r} is no node id of a test here", hint="tests/...py::test_it"
        )
    good, bad = (kernels.resolve(name) for name in (arguments.good, arguments.bad))
    releases = between(kernels.offered(), good, bad)
    results = new_directory(ROOT / "lab-results", f"bisect-{good.upstream}-{bad.upstream}")
    _say(
        f"lab: {len(releases)} releases from {releases[0].package} to {releases[-1].package}, "
        f"results in {results}"
    )
    trial = Trial(arguments.node, ROOT, results)
    boundary = bisect(releases, good=good, attempt=trial, say=_say)
    return Conclusion(ExitCode.PROVED, str(boundary))


def failed(error: LabError) -> Conclusion:
    """The conclusion of a command that an error ended."""
    code = ExitCode.USAGE if error.exit_code == ExitCode.USAGE else ExitCode.NOT_PROVED
    return Conclusion(code, str(error))
