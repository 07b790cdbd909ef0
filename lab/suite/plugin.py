# SPDX-License-Identifier: MIT
"""The pytest plugin, in every mode: plain `pytest`, the host of a guest, and inside a guest.

Hook wiring only.  What all modes share is here: the markers, the `needs` gate, and the refusal of
everything that looks like success and is none.  What a mode adds is in modules of its own, imported
when that mode is on: on the host of a guest `preparation`, `guest_run` and `run_end`, in a guest
`guest_side`, without one `local_side`.  A guest imports no more than it needs.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Generator, Iterable
from typing import Any

import pytest

from ..errors import COMMAND
from ..facts.probed import Probed
from ..facts.verdicts import ExitCode, Tally, conclude, printable
from ..remote.identity import Identity, identify
from ..rules import needs
from . import errata, selection, skips
from .stash import CONCLUSION, PROJECT

MARKERS = (
    "needs(capability, ...): runs only where the probe observed each of these capabilities",
    "kernel_gated: about the kernel's behaviour; runs here and in every guest of the lab",
    "slow: takes long under emulation; left out unless SLOW=1, --lab-slow or -m slow asks for it",
    "guest(cpus, memory, sysctl, cmdline, modules, devices): runs in a guest of the lab that has "
    "these; means nothing elsewhere",
    "issue(number): proves a promise of this issue",
    "lab: tests the lab itself; never sent to a guest",
)
MODE = pytest.StashKey["Mode"]()


class Mode:
    """What the shared hooks need of the mode they run in."""

    def __init__(
        self,
        probe: Callable[[], Probed | None],
        identity: Callable[[], Identity],
        *,
        hopeless: Callable[[Iterable[str]], str] | None = None,
        unconfirmed: skips.Unconfirmed | None = None,
        need_proof: bool = True,
        host: Callable[[pytest.Item], Any] | None = None,
    ) -> None:
        """`need_proof` is whether a skip counts only where probe and contract confirm it; `host`
        gives a test on the host its guest."""
        self._make_probe, self._make_identity = probe, identity
        self.hopeless, self.unconfirmed = hopeless, unconfirmed
        self.need_proof = need_proof
        self.host = host
        self._identity: Identity | None = None

    def probe(self) -> Probed | None:
        """The probe of the kernel that the test which runs is about."""
        return self._make_probe()

    def identity(self) -> Identity:
        """Who runs the tests; computed once."""
        if self._identity is None:
            self._identity = self._make_identity()
        return self._identity


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """The hooks by which another plugin can bring its own guests and say more of a hang."""
    from . import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The suite's options."""
    group = parser.getgroup("lab", "kernel lab")
    group.addoption(
        "--lab-kernel",
        action="append",
        metavar="NAME",
        help=f"run the tests in a guest with this kernel (what `{COMMAND} test` does); repeatable",
    )
    group.addoption(
        "--lab-as",
        metavar="SERIES",
        help="let the guest's kernel play this older series, by taking capabilities away",
    )
    group.addoption(
        "--lab-launcher",
        metavar="NAME",
        default="qemu",
        help="what boots the guest: the lab itself (qemu), or virtme-ng with this machine's own "
        "files as root (vng)",
    )
    group.addoption("--lab-slow", action="store_true", help="take slow tests too")
    group.addoption("--lab-results", metavar="DIR", help="instead of lab-results/")
    group.addoption(
        "--lab-guests",
        type=int,
        metavar="N",
        help="share the tests between so many guests at once, instead of as many as suit this "
        "machine and the number of tests",
    )
    group.addoption(
        "--lab-repeat",
        metavar="N",
        help="run the selection N times on each kernel, and tell how often each verdict came",
    )
    for key, metavar, what in (
        ("cpus", "N", "processors of a guest"),
        ("memory", "SIZE", "memory of a guest, in MiB or like 2G"),
    ):
        group.addoption(f"--lab-{key}", metavar=metavar, help=what)
    for key, option, metavar, what in (
        ("sysctl", "sysctl", "NAME=VALUE", "set in a guest before anything runs"),
        ("modules", "module", "NAME", "kernel module, loaded in a guest before anything runs"),
        ("cmdline", "append", "WORDS", "for the kernel's command line"),
        ("devices", "device", "DEVICE", "of a guest, as QEMU's -device takes it"),
    ):
        group.addoption(
            f"--lab-{option}", dest=f"lab_{key}", action="append", metavar=metavar, help=what
        )
    group.addoption(
        "--lab-timeout",
        type=float,
        metavar="SECONDS",
        help="time limit of each test in a guest, on the host's clock, instead of one scaled "
        "to the guest's speed",
    )
    group.addoption(
        "--lab-hold",
        action="store_true",
        help="keep the guest of each test that is not good, and open a shell in it",
    )
    group.addoption(
        "--lab-gdb",
        action="store_true",
        help="keep the guest of each test that is not good, and wait for gdb",
    )
    group.addoption(
        "--lab-dump",
        action="store_true",
        help="write the memory of a guest whose test hangs, or whose kernel complains or dies, "
        "into a file that drgn opens",
    )
    group.addoption(
        "--lab-unlisted",
        action="store_true",
        help=f"judge errata as on a release that no list names (what `{COMMAND} bisect` does)",
    )
    group.addoption("--lab-guest", action="store_true", help="(used by the lab, inside guests)")


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser) -> Generator[None, None, None]:
    """`--kernel` is short for `--lab-kernel`, and so on, unless the repository has an option of
    that name: its conftest.py was read by now, and nothing of it may change because the lab is
    installed."""
    result = yield
    # The parser is not part of pytest's public interface, which has no word for its options.
    groups = [parser._anonymous, *parser._groups]
    taken = {name for group in groups for option in group.options for name in option.names()}
    if "--kernel" not in taken:
        parser.getgroup("lab").addoption(
            "--kernel", dest="lab_kernel", action="append", metavar="NAME", help="as --lab-kernel"
        )
    if "--repeat" not in taken:
        parser.getgroup("lab").addoption(
            "--repeat", dest="lab_repeat", metavar="N", help="as --lab-repeat"
        )
    for flag in {"--hold", "--gdb", "--dump"} - taken:
        parser.getgroup("lab").addoption(
            flag, dest=f"lab_{flag[2:]}", action="store_true", help=f"as --lab-{flag[2:]}"
        )
    return result


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """`-n auto` with a kernel: as many guests as suit this machine."""
    if not config.getoption("lab_kernel"):
        return None
    from .at_once import Auto

    return Auto(1)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """pytest-xdist begins to loop here, before it configures anything."""
    if config.getoption("lab_kernel"):
        from .at_once import refuse_loop

        refuse_loop(config)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and the mode."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    # Every collection run of `--fixtures` and its like is also a session; none of them boots.
    if config.getoption("lab_guest"):
        from .guest_side import GuestSide

        guest = GuestSide(config)
        config.stash[MODE] = Mode(
            lambda: guest.probe, lambda: guest.identity, need_proof=guest.skips_need_proof
        )
        config.pluginmanager.register(guest, "lab-guest-side")
        return
    from .. import project as projects
    from ..errors import LabError, UsageError
    from ..kernels import lock

    names = config.getoption("lab_kernel")
    try:
        project = projects.read(config.rootpath)
        if names is not None:
            if not project.file:
                raise UsageError(
                    f"{project.root} has no [tool.lab] in a pyproject.toml and no lab.toml, so "
                    "nothing says what a guest gets",
                    hint=f"`{COMMAND} init` writes the table",
                )
            projects.check(project)
    except UsageError as error:
        config.stash[CONCLUSION] = conclude(Tally({}, usage=str(error)))
        raise pytest.UsageError(str(error)) from error
    config.stash[PROJECT] = project
    # A pytest inside a pytest, as pytester runs it, must leave the outer one its lock.
    config.add_cleanup(functools.partial(lock.use, lock.LOCK))
    lock.use(project.path(project.lock) if project.lock else None)
    if names is not None:
        from .. import cache, kernels
        from ..remote import tree
        from . import at_once
        from .guest_run import GuestRun
        from .preparation import Preparation
        from .run_end import RunEnd

        at_once.take_over(config)
        try:
            words = [word for given in names for word in kernels.split(given)]
            if not words:
                raise UsageError("--kernel names no kernel")
            names = kernels.matching(words, table=project.kernels)
        except LabError as error:
            raise pytest.UsageError(str(error)) from error
        # Before a test is collected: pytest keeps what it makes of it then.
        kept = contextlib.ExitStack()
        with contextlib.suppress(
            LabError, OSError
        ):  # no cache: the run says so when it wants the kernel
            kept.enter_context(tree.bytecode_kept(cache.bytecode_of(project.root)))
        config.add_cleanup(kept.close)
        preparation = Preparation(config, names)
        run = GuestRun(preparation)
        # What is judged on the host is judged by the host's side, with the guest's probe.
        config.stash[MODE] = Mode(
            run.host_side.probe,
            _identity_of(config),
            hopeless=preparation.columns[0].promises.hopeless,
            need_proof=project.skips_need_proof,
            host=run.host_side.guest_host,
        )
        config.pluginmanager.register(preparation, "lab-preparation")
        config.pluginmanager.register(run, "lab-guest-run")
        config.pluginmanager.register(run.host_side, "lab-host-side")
        config.pluginmanager.register(RunEnd(preparation, run), "lab-run-end")
        return
    from .host_hang import HostHangs
    from .local_side import LocalSide

    if config.getoption("lab_as"):
        here = f"; here set {project.mask_variable}" if project.mask_variable else ""
        raise pytest.UsageError(f"--lab-as is of guests, for --lab-kernel{here}")
    if (times := config.getoption("lab_repeat")) is not None:
        raise pytest.UsageError(
            f"--repeat {times} is of runs in guests: name a kernel, --kernel 6.12"
        )
    for flag in ("hold", "gdb", "dump"):
        if config.getoption(f"lab_{flag}"):
            raise pytest.UsageError(f"--{flag} is of guests: name a kernel, --kernel 6.12")
    local = LocalSide(project)
    config.stash[MODE] = Mode(
        functools.cache(local.probe),
        _identity_of(config),
        hopeless=local.hopeless,
        unconfirmed=local.unconfirmed,
        need_proof=project.skips_need_proof,
    )
    config.pluginmanager.register(local, "lab-local-side")
    config.pluginmanager.register(HostHangs(config), "lab-host-hangs")


def pytest_lab_resolve(config: pytest.Config, name: str) -> Any:
    """The kernels of the lab's catalogue, unless another plugin knows better."""
    from .. import kernels
    from ..vm import launcher_named

    return launcher_named(config.getoption("lab_launcher")).bootable(kernels.resolve(name))


def pytest_lab_guests(config: pytest.Config, kernel: Any) -> Any:
    """QEMU guests, unless another plugin offers its own."""
    from ..vm import Launchpad, launcher_named
    from .wished import wishes_of

    project = config.stash[PROJECT]
    launcher = launcher_named(config.getoption("lab_launcher"), project.environment_exclude)
    dumps = config.getoption("lab_dump")
    return Launchpad(kernel, launcher, wishes=wishes_of(config), dumps=dumps)


def _identity_of(config: pytest.Config) -> Callable[[], Identity]:
    return lambda: identify(config.rootpath, None)


@pytest.fixture(scope="session")
def lab_identity(request: pytest.FixtureRequest) -> Identity:
    """Who runs this test: release, nonce and hashes, read and computed on the spot.

    `.expected` is what the host of the run says they must be; on the host itself, where there is no
    such run, it raises.
    """
    return request.config.stash[MODE].identity()


@pytest.fixture
def guest_host(request: pytest.FixtureRequest) -> Any:
    """The guest as a `Host` of pytest-testinfra. A test that names this fixture runs on the host of
    the run, and no other test has the guest meanwhile.

    `.backend.guest` is the `lab.vm.Guest`.
    """
    host = request.config.stash[MODE].host
    if host is None:
        pytest.fail(
            f"{selection.GUEST_FIXTURE} is for tests that name it in their arguments, and there "
            f"is one under `{COMMAND} test` alone",
            pytrace=False,
        )
    return host(request.node)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave slow tests out unless asked for, tests that ask a guest where there is none to ask,
    and say how many."""
    if config.stash[MODE].host is None:
        config.stash[selection.GUEST_LEFT_OUT] = selection.leave_out_if(
            config, items, selection.asks_guest
        )
    if not selection.takes_slow(config):
        config.stash[selection.SLOW_LEFT_OUT] = selection.leave_out(config, items, "slow")


def pytest_report_collectionfinish(config: pytest.Config) -> str:
    """The counts of what was left out."""
    found = (
        (selection.SLOW_LEFT_OUT, "slow ", "; SLOW=1 takes them"),
        (selection.GUEST_LEFT_OUT, "", f" that ask a guest; `{COMMAND} test` boots one"),
    )
    lines = [
        f"{number} {kind}{'test' if number == 1 else 'tests'} left out{way}"
        for key, kind, way in found
        if (number := config.stash.get(key, 0))
    ]
    return "\n".join(lines)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A skip at collection time is an error, and so is a test that no kernel could ever run."""
    report = yield
    if collector.config.stash[MODE].need_proof:
        skips.judge_collection(report)
    if (hopeless := collector.config.stash[MODE].hopeless) is not None:
        skips.judge_needs(report, hopeless)
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The gate of `needs`: skip what the probe of this kernel says cannot work here."""
    names = skips.needed(item)
    if not names:
        if item.get_closest_marker("needs") is not None:
            pytest.fail("needs() names no capability", pytrace=False)
        return
    report = item.config.stash[MODE].probe()
    if report is None:
        pytest.fail("needs: there is no probe of this kernel", pytrace=False)
    try:
        reason = needs.missing(names, report)
    except ValueError as error:
        pytest.fail(str(error), pytrace=False)
    if reason:
        pytest.skip(reason)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Outermost, so that it sees what the skipping plugin made of the outcome."""
    report = yield
    mode = item.config.stash[MODE]
    skips.judge_report(report, mode.probe, mode.unconfirmed, need_proof=mode.need_proof)
    errata.note(report, call)
    if report.skipped:
        # The gate skips from this file; the summary is to name the test's.
        path, line, _ = item.location
        report.longrepr = (path, (line or 0) + 1, skips.skip_reason(report))
    return report


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """The very last line names the exit code and why."""
    conclusion = config.stash.get(CONCLUSION, None)
    # pytest itself prints what was wrong with a request, and does it after this.
    if conclusion is not None and conclusion.code != ExitCode.USAGE:
        print(printable(str(conclusion), getattr(sys.stdout, "encoding", None)), flush=True)
