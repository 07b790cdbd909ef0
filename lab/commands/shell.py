# SPDX-License-Identifier: MIT
"""`lab shell`: a guest to look around in."""

from __future__ import annotations

import argparse
import os
from typing import Any

from .. import project as projects
from ..vm import streams, terminal
from . import booting, choosing
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
        process = guest.spawn(["/bin/sh", "-i"], env=env, cwd=cwd, window=terminal.window(0))
        return terminal.attach(process, stdin=0, stdout=1)
