# SPDX-License-Identifier: MIT
"""A process in a guest on a terminal of this machine."""

from __future__ import annotations

import os
import signal
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..errors import LabError
from . import streams
from .guest import Process


@contextmanager
def own() -> Iterator[int]:
    """A descriptor of the terminal that this process belongs to, wherever its standard streams
    lead. Raises LabError if there is none, or if it is somebody else's just now."""
    try:
        descriptor = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise LabError(f"there is no terminal: /dev/tty: {error.strerror}") from error
    try:
        # Who reads in the background is stopped (SIGTTIN), and so is who sets its attributes.
        if os.tcgetpgrp(descriptor) != os.getpgrp():
            raise LabError("there is no terminal: this process is in the background")
        yield descriptor
    finally:
        os.close(descriptor)


def window(descriptor: int) -> tuple[int, int]:
    """Its rows and columns."""
    size = os.get_terminal_size(descriptor)
    return size.lines or 24, size.columns or 80


def attach(process: Process, *, stdin: int, stdout: int) -> int:
    """Give a process that has a terminal in its guest (`Guest.spawn`) this one until it ends; its
    exit status as `streams.pump`. Call it in the main thread. Raises GuestLost."""
    changed = [False]

    def resized(_number: int, _frame: FrameType | None) -> None:
        changed[0] = True

    def follow() -> None:
        if changed[0]:
            changed[0] = False
            process.resize(window(stdin))

    before = signal.signal(signal.SIGWINCH, resized)
    try:
        with _raw(stdin):
            return streams.pump(
                process,
                stdin=stdin,
                stdout=stdout,
                stderr=stdout,
                end_of_input=b"\x04",
                each_round=follow,
            )
    finally:
        signal.signal(signal.SIGWINCH, before)


@contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """The terminal raw: what is typed, Ctrl-C included, is the guest's."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
