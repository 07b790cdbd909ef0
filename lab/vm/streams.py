# SPDX-License-Identifier: MIT
"""A guest's process with the streams of this one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from .events import Exited, Output, Stream
from .guest import Process

CHUNK = 64 << 10
_MUCH = 1 << 20
"""Bytes of input that may wait in the guest because the process does not read."""
_ASK_AGAIN_S = 0.1
_LOOK_S = 0.5
_PATIENCE_S = 3600.0


def pump(
    process: Process,
    *,
    stdin: int = 0,
    stdout: int = 1,
    stderr: int = 2,
    end_of_input: bytes | None = None,
    each_round: Callable[[], None] | None = None,
    deadline: float | None = None,
) -> int:
    """Carry input and output until the process has ended; its exit status as a shell tells it,
    128 + n for signal n.

    At the end of `stdin` the process's input is closed, or `end_of_input` sent, as a terminal
    needs it. `each_round` is called twice a second and more. Raises TimeoutError at `deadline`
    (time.monotonic() seconds), BrokenPipeError when nobody reads the output any more, and
    GuestLost.
    """
    left, reading = 0, True
    while True:
        now = time.monotonic()
        if deadline is not None and now >= deadline:
            raise TimeoutError
        clogged = left > _MUCH
        # A signal does not end a wait in Python (PEP 475), so whoever waits for one has to look.
        idle = _PATIENCE_S if each_round is None else _LOOK_S
        patience = _ASK_AGAIN_S if clogged else idle
        if deadline is not None:
            patience = min(patience, deadline - now)
        sources = [stdin] if reading and not clogged else []
        if process.wait(sources, patience):
            data = _read(stdin)
            if data:
                left = process.write(data)
            else:
                reading = False
                left = process.write(end_of_input or b"", last=end_of_input is None)
        elif clogged:
            left = process.write(b"")
        if each_round is not None:
            each_round()
        while True:
            try:
                event = process.receive(0.001)
            except TimeoutError:
                break
            if isinstance(event, Output):
                _write(stdout if event.stream is Stream.STDOUT else stderr, event.data)
            elif isinstance(event, Exited):
                return event.status if event.status >= 0 else 128 - event.status


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, CHUNK)
    except BlockingIOError:
        return b""
    except OSError:  # a standard input that was closed or hung up has ended
        return b""


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
