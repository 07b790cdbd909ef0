# SPDX-License-Identifier: MIT
"""`lab run`: any program in a guest, with its streams and its own exit status."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .. import project as projects
from ..errors import COMMAND, GuestLost, LabError, UsageError
from ..rules import dmesg
from ..vm import Launcher, streams
from . import booting, choosing, pulling
from .booting import say
from .log import told

LAB_FAILED = 125
"""What `run` and `shell` exit with when the lab failed and not the command."""
INTERRUPTED = 130
BROKEN_PIPE = 141
"""128 + SIGPIPE: what the command would have died of."""

EPILOG = f"""\
CMD runs as root, in the last directory given to --copy, else in /. Its standard streams are those
of this command and its exit status is this command's: 128 + n when signal n killed it, 127 when
there is no such program, 126 when it cannot be run. {LAB_FAILED}: the lab itself failed (an unknown
kernel, a lost guest, a time limit); the last line on standard error says why. {INTERRUPTED}:
interrupted.

A guest has busybox, this Python and its environment, what travels of this repository, and what
--copy brings. --env PATH=... and --env PYTHONPATH=... go before what the lab sets. What CMD leaves
behind is gone with the guest, but for what --pull names; a colon in a path for --pull is written
\\:, and what cannot be had makes the status {LAB_FAILED} unless CMD failed."""


class Parser(argparse.ArgumentParser):
    """Leaves every small exit status to the command."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        say(message)
        sys.exit(LAB_FAILED)


def add_parser(commands: Any) -> None:
    """Add `run` to the subparsers of `lab`."""
    commands._parser_class, before = Parser, commands._parser_class
    try:
        parser = commands.add_parser(
            "run",
            help="run any program in a guest",
            usage=f"{COMMAND} run --kernel NAME [--copy PATH]... [options] -- CMD [ARG]...",
            description="Boots a kernel, runs one program in it and exits with its status.",
            epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
    finally:
        commands._parser_class = before
    add_options(parser)
    parser.add_argument(
        "--pull",
        action="append",
        default=[],
        metavar="GUESTPATH[:HOSTPATH]",
        help="bring a file or directory of the guest here when CMD has ended, whatever its status; "
        "into this directory, or to HOSTPATH; repeatable",
    )
    parser.add_argument("argv", nargs="*", metavar="CMD", help="the program and its arguments")
    parser.set_defaults(handler=run, parser=parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what `run` and `shell` have in common."""
    choosing.add_options(parser)
    parser.add_argument(
        "--copy",
        action="append",
        default=[],
        type=Path,
        metavar="PATH",
        help="a file or directory that the guest gets a copy of at the same path; repeatable",
    )
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="repeatable"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        metavar="S",
        help="end CMD after so many seconds, boot not included",
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="keep console.log and the guest's other logs here",
    )
    choosing.add_launcher(parser)
    choosing.add_wishes(parser)


def _seconds(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0 seconds")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    if not arguments.argv:
        say(f"there is no command: {COMMAND} run --kernel 6.12 -- CMD [ARG]...")
        return LAB_FAILED
    return guarded(lambda: _run(arguments))


def guarded(work: Any) -> int:
    """What `work` returns, or the status for what kept it from returning, said in one line."""
    with told():
        try:
            return int(work())
        except KeyboardInterrupt:
            say("interrupted")
            return INTERRUPTED
        except BrokenPipeError:
            return BROKEN_PIPE
        except TimeoutError as error:
            say(str(error))
        except GuestLost as error:
            for line in error.console_tail.splitlines():
                print(f"    {line}", file=sys.stderr)
            say(str(error))
        except LabError as error:
            say(str(error))
    return LAB_FAILED


def environment(pairs: Sequence[str]) -> Mapping[str, str]:
    """What --env says. Raises UsageError."""
    wrong = [pair for pair in pairs if pair.partition("=")[::2][0] == "" or "=" not in pair]
    if wrong:
        raise UsageError(f"--env {wrong[0]!r} is not NAME=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


def _run(arguments: argparse.Namespace) -> int:
    project = projects.here()
    launcher, wishes = choosing.launcher_of(arguments), choosing.wishes_of(arguments)
    wishes = wishes.over(project.guest)
    env = booting.python_environment(launcher, project) | dict(environment(arguments.env))
    copies = [booting.checked(path) for path in arguments.copy]
    cwd = working_directory(copies, launcher)
    pulls = pulling.all_asked(arguments.pull, cwd)
    with booting.guest(
        choosing.kernel_of(arguments),
        project=project,
        launcher=launcher,
        results=arguments.results,
        wishes=wishes,
        copies=copies,
    ) as guest:
        guest.read_kernel_log()  # what it said while it booted is not the command's
        process = guest.spawn(
            # The shell's words and statuses for what is not there or cannot be run, 127 and 126.
            ["/bin/sh", "-c", 'exec "$@"', "sh", *arguments.argv],
            env=env,
            cwd=cwd,
            stdin=True,
        )
        limit = arguments.timeout
        late = False
        try:
            status = streams.pump(process, deadline=limit and time.monotonic() + limit)
        except TimeoutError:
            late, status = True, LAB_FAILED
            process.kill()
        if not pulling.done(guest, pulls):
            status = status or LAB_FAILED
        if late:
            raise TimeoutError(f"{arguments.argv[0]} was not done after {limit:g} s")
        said = guest.read_kernel_log()
        if splats := dmesg.scan_records(said.records, guest.kernel):
            say(f"the kernel complained meanwhile: {dmesg.summary(splats)}")
        for gap in said.gaps:
            say(f"whether the kernel complained is not known: {gap}")
    return status


def working_directory(copies: Sequence[Path], launcher: Launcher) -> str:
    """Where a command starts."""
    if not copies:
        return str(Path.cwd()) if launcher.has_our_files else "/"
    return str(copies[-1] if copies[-1].is_dir() else copies[-1].parent)
