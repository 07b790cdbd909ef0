# SPDX-License-Identifier: MIT
"""How far a command is that works through many bytes: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SILENCE_S = 5.0
"""Without a terminal, how long nothing is said."""

Step = Callable[[str, int], None]
"""Told what is begun, and the bytes it has."""


@contextmanager
def shown(what: str, things: int, size: int) -> Iterator[Step]:
    """Show in the block how much of `size` bytes in so many things is done."""
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        yield from _bar(what, size)
    else:
        yield from _lines(what, things, size)


def _lines(what: str, things: int, size: int) -> Iterator[Step]:
    done = begun = 0
    said = time.monotonic()
    print(f"lab: {what} {things} entries of {size / 1e6:.0f} MB", file=sys.stderr)

    def step(name: str, more: int) -> None:
        nonlocal done, begun, said
        if time.monotonic() - said >= SILENCE_S:
            said = time.monotonic()
            print(
                f"lab: {begun} of {things} done, {done / 1e6:.0f} of {size / 1e6:.0f} MB; "
                f"now {name}",
                file=sys.stderr,
            )
        begun, done = begun + 1, done + more

    yield step


def _bar(what: str, size: int) -> Iterator[Step]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    columns = (
        TextColumn(what),
        BarColumn(20),
        DownloadColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn(
            "{task.fields[name]}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
        ),
    )
    current = 0
    console = Console(file=sys.stdout)
    with Progress(*columns, console=console, transient=True, expand=True) as progress:
        task = progress.add_task(what, total=size, name="")

        def step(name: str, more: int) -> None:
            nonlocal current
            progress.update(task, advance=current, name=name)
            current = more

        yield step
