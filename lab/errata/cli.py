# SPDX-License-Identifier: MIT
"""`lab errata` and `lab bisect`, and the way to `lab sweep`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import project as projects
from ..building import Order, add_options, order_of
from ..errors import LabError, MissingTool, UsageError
from ..facts.errata import Measured
from ..facts.kernel import Kernel, version_key
from ..facts.verdicts import Conclusion, ExitCode
from ..rules import contract, dmesg
from ..rules import errata as catalogue
from . import lists, programs_sweep, record, table

if TYPE_CHECKING:
    from .sweep import Swept

EVERY, MEASURED = "every", "measured"
_UNASKED = frozenset({"errata", "bisect", "sweep"})

EPILOG = """\
exit codes: 0 every release asked has been decided and the lists do not contradict; 1 a reproducer
failed, a list contradicts, or --check found the page changed; 2 usage; 3 not everything decided;
130 interrupted."""


def add_commands(commands: Any) -> None:
    """Add them to the subparsers of `lab`."""
    errata = commands.add_parser(
        "errata",
        help="measure known defects over released kernels",
        description="Boots releases, runs each erratum's reproducer and writes their page. "
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
        "--share",
        type=_share,
        default=(1, 1),
        metavar="I/N",
        help="only the I-th of N shares of those releases, without their page: N runs, on as many "
        "machines, measure all",
    )
    errata.add_argument(
        "--check",
        action="store_true",
        help="write neither the page nor the lists: exit 1 if the page would change",
    )
    errata.add_argument(
        "--update", action="store_true", help="put what was measured into errata.toml"
    )
    errata.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="where measurements and consoles go, instead of lab-results/errata",
    )
    errata.add_argument(
        "--page",
        type=Path,
        metavar="FILE",
        help="measure nothing: write the table as a page for a browser, with what was seen where "
        "this machine has measured it",
    )
    bisect = commands.add_parser(
        "bisect",
        help="find between which releases a test's verdict changes",
        description="Tries a test on released kernels, fetched as needed, and halves the distance "
        "between the two named ones; with --git on commits, each of which is built. What "
        "errata.toml lists does not count.",
        allow_abbrev=False,
    )
    for side in ("good", "bad"):
        bisect.add_argument(f"--{side}", required=True, metavar="RELEASE-or-REF")
    bisect.add_argument(
        "--git", type=Path, metavar="DIR", help="a repository of the kernel: find the commit"
    )
    bisect.add_argument("--fresh", action="store_true", help="with --git: try again what is known")
    add_options(bisect)
    bisect.add_argument("node", metavar="NODEID", help="tests/...py::test_it")
    programs_sweep.add_command(commands)


def _share(text: str) -> tuple[int, int]:
    number, slash, of = text.partition("/")
    if not slash or not number.isdecimal() or not of.isdecimal() or not 1 <= int(number) <= int(of):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with 1 <= I <= N, such as 2/4")
    return int(number), int(of)


def handles(command: str) -> bool:
    """Whether this module runs the command."""
    return command in _UNASKED


def run(arguments: argparse.Namespace) -> Conclusion:
    """Run the command: what it concluded. Raises LabError and KeyboardInterrupt."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.command == "sweep":
        return programs_sweep.run(arguments, _say)
    return _bisect(arguments) if arguments.command == "bisect" else _errata(arguments)


def _say(text: str) -> None:
    print(text, flush=True)


def _errata(arguments: argparse.Namespace) -> Conclusion:
    from .. import cache
    from ..remote import sending, tree
    from ..remote.process import TREE
    from .measure import Sent
    from .program import programs
    from .reproduce import probe_environment
    from .state import State
    from .store import Cellar
    from .sweep import Job, evidence, in_turn, sweep

    project = projects.here()
    if project.errata is None:
        raise UsageError(
            f"there is no [tool.lab.errata] in the table of {project.root}, so nothing to measure"
        )
    if arguments.page is not None:
        return _paged(arguments, project)
    projects.check(project)
    errata, promised = catalogue.of(project), contract.of(project)
    listed = project.path(project.errata.list)
    names = arguments.kernel or [EVERY]
    sent = sending.of(project)
    with tree.bytecode_kept(cache.bytecode_of(project.root)):
        compiled = sent.bytecode()
        tar = sent.pack(compiled)
    tree_sha256, extension_sha256 = sent.hashes()
    results = arguments.results or project.root / "lab-results/errata"
    program = programs(project.root, project.errata, errata.reproducers)
    state = State(results / "measured.json", program)
    kernels = share(chosen(names, state.whole), arguments.share)
    unfinished = chosen([MEASURED], state.begun) if MEASURED in names else []
    job = Job(
        catalogue=errata,
        kernels=in_turn(kernels),
        contract=promised,
        sent=Sent(
            tar=tar,
            tree_sha256=tree_sha256,
            extension_sha256=extension_sha256,
            bytecode_sha256=tree.hashes(compiled)[0],
            environment={
                "PYTHONPATH": sending.search_path(project, TREE),
                **probe_environment(
                    sending.command(project.probe) if project.probe else (),
                    project.mask_variable,
                    promised.names,
                ),
            },
            setup=sending.command(project.setup) if project.setup else (),
            allowed=dmesg.of(project),
        ),
        results=results,
        fresh=arguments.fresh,
    )
    _say(f"lab: {len(errata.errata)} errata on {len(kernels)} releases")
    swept = sweep(job, Cellar(project), state, _say)
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
        _say(f"lab: --update puts what was measured into {listed.name}")
    if arguments.update and not arguments.check:
        listed.write_text(lists.updated(listed.read_text(), errata, swept.measured))
        _say(f"lab: {listed.name} has the lists as measured; review the diff")
    whole = bool({EVERY, MEASURED}.intersection(names)) and arguments.share == (1, 1)
    texts = _texts(project, errata, swept.measured)
    changed = ""
    for name, text in texts.items():
        place = project.path(name)
        same = place.exists() and place.read_text() == text
        changed = changed or ("" if same or not whole else name)
        if (whole or arguments.update) and not arguments.check and swept.measured:
            place.write_text(text)
            _say(f"lab: {name} {'is what it was' if same else 'is new'}")
        elif not whole:
            _say(f"lab: {name} is written by --update, or by --kernel {EVERY} or {MEASURED}")
    return _concluded(swept, changed=changed if arguments.check else "")


def _paged(arguments: argparse.Namespace, project: projects.Project) -> Conclusion:
    """Write the page of what is recorded. Raises LabError."""
    from ..report import page
    from .program import programs
    from .state import State

    assert project.errata is not None
    measuring = {
        "--kernel": arguments.kernel,
        "--fresh": arguments.fresh,
        "--share": arguments.share != (1, 1),
        "--check": arguments.check,
        "--update": arguments.update,
    }
    if given := [flag for flag, value in measuring.items() if value]:
        raise UsageError(f"--page measures nothing, so {given[0]} means nothing beside it")
    if not project.errata.table:
        raise UsageError(
            "--page shows the table of [tool.lab.errata], and that names none",
            hint='table = "docs/errata.json"',
        )
    errata = catalogue.of(project)
    rows = record.read(project.path(project.errata.table), errata)
    results = arguments.results or project.root / "lab-results/errata"
    program = programs(project.root, project.errata, errata.reproducers)
    state = State(results / "measured.json", program)
    rows = [state.with_words(row) for row in rows]
    file: Path = arguments.page
    try:
        page.replaced(file, page.render_errata(errata.errata, rows))
    except ImportError as error:
        raise MissingTool(
            "the page needs jinja2, which is not installed", hint="pip install jinja2"
        ) from error
    except OSError as error:
        raise LabError(f"{file} cannot be written: {error.strerror}") from error
    _say(str(file))
    if not rows:
        return Conclusion(ExitCode.NOT_PROVED, f"{project.errata.table} has no release yet")
    return Conclusion(ExitCode.PROVED, f"{len(rows)} releases are on the page")


def _texts(
    project: projects.Project, errata: catalogue.Catalogue, measured: Sequence[Measured]
) -> dict[str, str]:
    """The page and the table, by their names, of what is recorded and what was measured."""
    assert project.errata is not None
    recorded = project.errata.table
    before = record.read(project.path(recorded), errata) if recorded else []
    rows = record.merged(before, measured)
    page = table.render(errata, rows, table=recorded)
    texts = {project.errata.page: page, recorded: record.render(errata, rows)}
    return {name: text for name, text in texts.items() if name}


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


def share(kernels: Sequence[Kernel], which: tuple[int, int]) -> list[Kernel]:
    """The I-th of N shares of the kernels, the N of which are all of them. Raises UsageError for
    one with nothing in it."""
    number, shares = which
    some = list(kernels[number - 1 :: shares])
    if not some and shares > 1:
        raise UsageError(
            f"--share {number}/{shares}: of {len(kernels)} releases none is in that share"
        )
    return some


def _concluded(swept: Swept, *, changed: str) -> Conclusion:
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
        return Conclusion(ExitCode.DISPROVED, f"{changed} is not what was measured ({decided})")
    return Conclusion(ExitCode.PROVED, decided)


def _bisect(arguments: argparse.Namespace) -> Conclusion:
    from .. import kernels
    from ..report.results import new_directory
    from .bisect import between, bisect
    from .trial import Trial

    root = projects.here().root
    if "::" not in arguments.node or not (root / arguments.node.split("::")[0]).is_file():
        raise UsageError(
            f"{arguments.node!r} is no node id of a test here", hint="tests/...py::test_it"
        )
    if arguments.git is not None:
        return _bisect_commits(arguments, root)
    if arguments.fresh or order_of(arguments) != Order(jobs=arguments.jobs):
        raise UsageError("--fresh, --base, --flavour, --set and --debug-info go with --git")
    good, bad = (kernels.resolve(name) for name in (arguments.good, arguments.bad))
    releases = between(kernels.offered(), good, bad)
    results = new_directory(root / "lab-results", f"bisect-{good.upstream}-{bad.upstream}")
    _say(
        f"lab: {len(releases)} releases from {releases[0].package} to {releases[-1].package}, "
        f"results in {results}"
    )
    trial = Trial(arguments.node, root, results)
    boundary = bisect(releases, good=good, attempt=trial, say=_say)
    return Conclusion(ExitCode.PROVED, str(boundary))


def _bisect_commits(arguments: argparse.Namespace, root: Path) -> Conclusion:
    import hashlib
    import json

    from .. import building, cache
    from .bisect import Side, Tried
    from .commits import Bisection
    from .trial import Trial

    order, git = order_of(arguments), arguments.git
    if not git.is_dir():
        raise UsageError(f"--git {git} is no directory")
    # What was tried by another test, or of another kind of kernel, says nothing here.
    test = (root / arguments.node.split("::")[0]).read_bytes()
    kind = [order.base, order.debug, order.debug_info, sorted(order.settings.items())]
    identity = [str(git.resolve()), arguments.good, arguments.bad, arguments.node, test.hex(), kind]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    directory = root / "lab-results" / f"bisect-{key}"
    directory.mkdir(parents=True, exist_ok=True)
    waiting = partial(_say, "lab: the same bisection is under way: waiting for its end")
    with cache.locked(f"bisect-{key}", waiting=waiting):
        if arguments.fresh:
            (directory / "steps.json").unlink(missing_ok=True)
        bisection = Bisection(git, arguments.good, arguments.bad, directory)
        before = f", {bisection.known} tried before" if bisection.known else ""
        _say(f"lab: {bisection.between} commits{before}, results in {directory}")
        trial = Trial(arguments.node, root, directory)

        def attempt(commit: str) -> Tried:
            progress = building.Shown()
            try:
                outcome = building.build(building.GitCommit(str(git), commit), order, progress)
            except (building.BuildFailed, UsageError) as error:
                return Tried(Side.UNDECIDED, f"it cannot be built: {error.message}")
            finally:
                progress.end()
            return trial(outcome.kernel)

        turn = bisection.run(attempt, _say)
        bisection.over()
        _say(f"lab: git's log of it is {directory / 'bisect.log'}")
        return Conclusion(ExitCode.PROVED, str(turn))


def failed(error: LabError) -> Conclusion:
    """The conclusion of a command that an error ended."""
    code = ExitCode.USAGE if error.exit_code == ExitCode.USAGE else ExitCode.NOT_PROVED
    return Conclusion(code, str(error))
