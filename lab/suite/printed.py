# SPDX-License-Identifier: MIT
"""Brings what a test prints out of the guest as it is printed.

pytest keeps that in files of the guest until the test is over, and a process or kernel that dies
takes them along. A write to the port named by the environment is with the host once it returns, and
goes by no other process. A guest imports this: standard library and pytest only.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from ..remote.wire import PRINTED_VARIABLE

MOST = 8 << 20
"""So many bytes of one test are sent."""
AT_ONCE, EACH_S = 1000, 0.01
"""So many writes of one test are each sent as they come, then one in so many seconds: under
emulation each takes a tenth of a millisecond."""
_PIECE = 32 << 10
"""The driver takes no more at once (port_fops_write(), 6.12)."""
_CUT = b"\n(what it printed behind this is not here: it was too much)\n"


class _File:
    """What pytest keeps of one stream."""

    def __init__(self, descriptor: int, sent: int) -> None:
        self.descriptor, self.sent = descriptor, sent


class Printed:
    """A plugin of the guest's pytest."""

    def __init__(self) -> None:
        self._port = -1
        if path := os.environ.pop(PRINTED_VARIABLE, ""):
            with suppress(OSError):  # a process that is not quite gone has it still
                self._port = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
        self._owner = os.getpid()
        # A signal's handler may print while its thread does.
        self._lock = threading.RLock()
        self._left = MOST
        self._tokens, self._since = float(AT_ONCE), 0.0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self) -> None:
        """Another test."""
        self._left, self._tokens, self._since = MOST, float(AT_ONCE), time.monotonic()

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_setup(self) -> Generator[None, Any, Any]:
        """Within what captures."""
        with self._streamed():
            return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self) -> Generator[None, Any, Any]:
        """Within what captures."""
        with self._streamed():
            return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self) -> Generator[None, Any, Any]:
        """Within what captures."""
        with self._streamed():
            return (yield)

    @contextmanager
    def _streamed(self) -> Iterator[None]:
        """Send what is written to standard output and error in this phase, as far as files keep
        it; with each write by Python what either has got by its descriptor."""
        streams = (sys.stdout, sys.stderr) if self._port >= 0 else ()
        kept = {stream: file for stream in streams if (file := _file_of(stream)) is not None}
        files = list(kept.values())
        with ExitStack() as stack:
            stack.callback(self._send, files)
            for stream, own in kept.items():
                # What the others have was written before.
                others = [file for file in files if file is not own]
                stack.enter_context(self._hooked(stream, [*others, own]))
            yield

    @contextmanager
    def _hooked(self, stream: Any, files: Sequence[_File]) -> Iterator[None]:
        write: Callable[[str], int] = stream.write

        def sending(text: str) -> int:
            written = write(text)
            if self._may_send():
                self._send(files)
            return written

        stream.write = sending
        try:
            yield
        finally:
            del stream.write

    @contextmanager
    def program(self) -> Iterator[Callable[[bytes], object]]:
        """Send what a program writes, of which the item hears piece by piece."""
        waits = bytearray()

        def heard(data: bytes) -> None:
            if self._port < 0:
                return
            waits.extend(data[: self._left - len(waits)])
            if self._may_send():
                self._send_all(waits)

        try:
            yield heard
        finally:
            self._send_all(waits)

    def _send_all(self, waits: bytearray) -> None:
        """Send this, as far as the port takes it."""
        with self._lock, suppress(OSError):
            while waits:
                data = bytes(waits[:_PIECE])
                del waits[:_PIECE]
                self._put(data)

    def _put(self, data: bytes) -> None:
        self._left = max(0, self._left - len(data))
        os.write(self._port, data if self._left else data + _CUT)

    def _may_send(self) -> bool:
        now = time.monotonic()
        self._tokens = min(float(AT_ONCE), self._tokens + (now - self._since) / EACH_S)
        self._since = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _send(self, files: Iterable[_File]) -> None:
        """Send what these files have that was not sent. A child of the test writes to the same
        files, and its parent sends that."""
        if os.getpid() != self._owner:
            return
        with self._lock, suppress(OSError):  # what the test itself does matters more
            for file in files:
                while self._left and (data := os.pread(file.descriptor, _PIECE, file.sent)):
                    file.sent += len(data)
                    self._put(data)


def _file_of(stream: Any) -> _File | None:
    """The file that a stream writes to, as it is now; None if it is no file."""
    try:
        descriptor = stream.fileno()
        about = os.fstat(descriptor)
    except (AttributeError, OSError, ValueError):
        return None
    return _File(descriptor, about.st_size) if stat.S_ISREG(about.st_mode) else None
