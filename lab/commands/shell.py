# SPDX-License-Identifier: MIT
"""`lab shell`: a guest to look around in."""

from __future__ import annotations

import argparse
import os
import signal
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from .. import project as projects
from . import booting, choosing, streams
from .run import add_options, environment, guarded, working_directory


def add_parser(commands: Any) -> None:
    """Add `shell` to the subparsers of `lab`."""
    parser = commands.add_parser(
        "shell",
        help="boot a guest and work in it",
        description="Boots a kernel and starts a shell in it, on a terminal of the guest's own. "
        "The guest is gone when the shell ends. Without a terminal the shell reads commands from "
        "standard input.",
        allow_abbrev=False,
    )
    add_options(parser)
    parser.set_defaults(handler=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the shell; its exit status, 125 when the lab failed."""
    return guarded(lambda: _shell(arguments))


def _shell(arguments: argparse.Namespace) -> int:
    project = projects.here()
    launcher, wishes = choosing.launcher_of(arguments), choosing.wishes_of(arguments)
    wishes = wishes.over(project.guest)
    env = booting.python_environment(launcher, project) | dict(environment(arguments.env))
    copies = [booting.checked(path) for path in arguments.copy]
    interactive = os.isatty(0) and os.isatty(1)
    with booting.guest(
        choosing.kernel_of(arguments),
        project=project,
        launcher=launcher,
        results=arguments.results,
        wishes=wishes,
        copies=copies,
    ) as guest:
        cwd = working_directory(copies, launcher)
        if not interactive:
            process = guest.spawn(["/bin/sh"], env=env, cwd=cwd, stdin=True)
            return streams.pump(process)
        env.setdefault("TERM", os.environ.get("TERM", "vt100"))
        env.setdefault("PS1", f"[{guest.kernel.upstream} $PWD]# ")
        process = guest.spawn(["/bin/sh", "-i"], env=env, cwd=cwd, window=_window())
        changed = [False]

        def resized(_number: int, _frame: FrameType | None) -> None:
            changed[0] = True

        def follow() -> None:
            if changed[0]:
                changed[0] = False
                process.resize(_window())

        before = signal.signal(signal.SIGWINCH, resized)
        try:
            with _raw():
                return streams.pump(process, end_of_input=b"\x04", each_round=follow)
        finally:
            signal.signal(signal.SIGWINCH, before)


def _window() -> tuple[int, int]:
    size = os.get_terminal_size(0)
    return size.lines or 24, size.columns or 80


@contextmanager
def _raw() -> Iterator[None]:
    """The terminal raw: what is typed, Ctrl-C included, is the guest's."""
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
