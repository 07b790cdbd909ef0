# SPDX-License-Identifier: MIT
"""What can be seen of a scenario from its own side: callbacks in order, reports, descriptors."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
import socket
import struct
import sys
import termios
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def describe(error: BaseException | None) -> str | None:
    """An exception as it is compared: its class and errno, because messages may differ."""
    if error is None:
        return None
    if isinstance(error, OSError) and error.errno:
        return f"{type(error).__name__} {errno.errorcode.get(error.errno, error.errno)}"
    return type(error).__name__


class Log:
    """The callbacks of one protocol, in order; bytes that came in a row are one entry."""

    def __init__(self) -> None:
        self.entries: list[list[Any]] = []
        self.count = 0

    def note(self, *entry: Any) -> None:
        self.entries.append(list(entry))
        self.count += 1

    def data(self, what: str, data: bytes) -> None:
        """`data` came by the way `what`."""
        self.count += 1
        if self.entries and self.entries[-1][0] == what:
            _, size, crc = self.entries[-1]
            self.entries[-1] = [what, size + len(data), zlib.crc32(data, crc)]
        else:
            self.entries.append([what, len(data), zlib.crc32(data)])


class Reports:
    """What reached nobody's except clause: the loop's handler, warnings, unraisable exceptions."""

    def __init__(self) -> None:
        self.handler: list[list[Any]] = []
        self.warnings: list[str] = []
        self.unraisable: list[Any] = []

    def handle(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The loop's exception handler. A call like the last one is noted once.

        CPython 3.11 reports an accept that failed as often as the backlog is long. A message that
        names a callback names its class, and the transports of two loops are of two classes; so do
        its arguments.
        """
        message = context["message"].split(" for ")[0]
        if message.startswith("Exception in callback "):
            message = re.sub(r"\b\w*Transport\.", "Transport.", message.partition("(")[0])
        entry = [message, describe(context.get("exception"))]
        if not self.handler or entry != self.handler[-1]:
            self.handler.append(entry)

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Note warnings and unraisable exceptions for the length of a block."""
        before = sys.unraisablehook
        sys.unraisablehook = lambda args: self.unraisable.append(describe(args.exc_value))
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                yield
        finally:
            sys.unraisablehook = before
        self.warnings = sorted(
            f"{each.category.__name__}: {' '.join(str(each.message).split()[:2])}"
            for each in caught
            # Which socket object is left to the collector is the loop's own affair.
            if not str(each.message).startswith(("unclosed <socket", "unclosed <asyncio.Transport"))
        )


def descriptors() -> dict[int, str]:
    """This process's open descriptors and what they are of."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[int(entry.name)] = str(entry.readlink())
        except OSError:  # the listing's own
            continue
    return found


def left(before: dict[int, str]) -> list[str]:
    """What is open now and was not `before`, by kind."""
    new = [text for number, text in descriptors().items() if before.get(number) != text]
    return sorted(text.partition(":")[0] for text in new)


def take_all_descriptors() -> list[int]:
    """Duplicates of standard input until the process has no descriptor left.

    The limit itself stays: the kernel notes it when an accept is armed, and keeps to that
    (`nofile` in io_accept_prep(), read in Linux 6.6 and 6.13).
    """
    used = []
    while True:
        try:
            used.append(os.dup(0))
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            return used


def waiting(number: int) -> int:
    """How many bytes wait in a socket for somebody to read them."""
    answer = fcntl.ioctl(number, termios.FIONREAD, bytes(4))
    return int.from_bytes(answer, sys.byteorder)


def tcp_sockets() -> int:
    """How many of this process's descriptors are TCP sockets, listening or not."""
    count = 0
    for number, text in descriptors().items():
        if not text.startswith("socket:"):
            continue
        try:
            sock = socket.socket(fileno=number)
        except OSError:
            continue
        count += (
            sock.family in (socket.AF_INET, socket.AF_INET6) and sock.proto == socket.IPPROTO_TCP
        )
        sock.detach()
    return count


def given_back(sock: socket.socket) -> str:
    """How a socket that was lent looks to its owner afterwards."""
    if sock.fileno() < 0:
        return "closed"
    try:
        on, seconds = struct.unpack("ii", sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
    except OSError as error:
        return f"not a socket any more: {describe(error)}"
    return f"open, linger {on} {seconds}"


class Strangers:
    """Descriptors opened in the middle of a scenario, which nobody but us may touch."""

    def __init__(self) -> None:
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._files: list[int] = []

    def open(self) -> None:
        """Take the lowest free numbers, with sockets and a file."""
        for _ in range(3):
            pair = socket.socketpair()
            for sock in pair:
                sock.setblocking(False)
            self._pairs.append(pair)
            self._files.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))

    def seen(self) -> list[str]:
        """What happened to them."""
        harm = []
        for sock in (each for pair in self._pairs for each in pair):
            try:
                harm.append(f"a socket got {len(sock.recv(1 << 16))} bytes")
            except BlockingIOError:
                continue
            except OSError as error:
                harm.append(f"a socket: {describe(error)}")
        for number in self._files:
            try:
                if str(Path(f"/proc/self/fd/{number}").readlink()) != "/dev/null":
                    harm.append("a file became another")
            except OSError as error:
                harm.append(f"a file: {describe(error)}")
        return harm

    def close(self) -> None:
        for sock in (each for pair in self._pairs for each in pair):
            try:
                sock.close()
            except OSError:
                sock.detach()
        for number in self._files:
            try:
                os.close(number)
            except OSError:
                continue
