# SPDX-License-Identifier: MIT
"""What QEMU itself can tell about a guest, whatever the guest is at."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import arch
from ..errors import LabError
from .memory import DUMP, MemoryAtEnd, dump_arguments
from .standing import Standing

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

_PATIENCE_S = 5.0
DUMP_S = 120.0
"""So long, in seconds, a dump may take: 768 MiB took 3.5."""
ROOM_LEFT = 256 << 20
"""Bytes that a dump leaves free on the disk: the run has more to write."""


class Monitor:
    """QMP on a socket; may be asked more than once, in which QEMU greets only the first time."""

    def __init__(self, sock: socket.socket, at_end: MemoryAtEnd | None = None) -> None:
        """`at_end` keeps the memory of a machine that ends by itself."""
        self._socket, self._at_end = sock, at_end
        self._greeted = False

    def describe(self, *, times: int = 1, apart_s: float = 0.0) -> Standing:
        """The machine's state and its processors' registers, asked for so often, so many seconds
        apart.

        Never raises for a QEMU that does not answer: the text says so.
        """

        async def ask(client: QMPClient) -> Standing:
            return await self._ask(client, times, apart_s)

        try:
            standing: Standing = self._talk(ask, _PATIENCE_S + times * apart_s)
        except LabError as error:
            return Standing([], False, f"{error}\n")
        return standing

    def registers(self) -> str:
        """All registers of all processors. Raises LabError."""
        return self._said("info registers -a")

    def dump(self, file: Path) -> None:
        """Write the guest's memory into `file`, an ELF core, while the guest stands still; of a
        guest that has ended by itself it is what it had then. Raises LabError, and leaves no file
        then."""
        if (kept := self._at_end) is not None and (kept.written or kept.why):
            if not kept.written:
                raise LabError(kept.why)
            try:
                kept.file.replace(file)
            except OSError as error:
                raise LabError(f"{kept.file.name}: {error.strerror}") from error
            return

        async def write(client: QMPClient) -> None:
            size = (await client.execute("query-memory-size-summary"))["base-memory"]  # type: ignore[index]
            free = shutil.disk_usage(file.parent).free
            if free < size + ROOM_LEFT:
                raise LabError(
                    f"{size >> 20} MiB are too much for a disk that has {free >> 20} MiB left"
                )
            await client.execute(DUMP, dict(dump_arguments(file)))

        try:
            self._talk(write, DUMP_S)
        except LabError:
            file.unlink(missing_ok=True)
            raise

    def serve_gdb(self, door: Path) -> None:
        """Let one gdb after the other debug the guest by the socket `door`. Raises LabError."""
        where = str(door).replace(",", ",,")
        said = self._said(f"gdbserver unix:{where},server=on,wait=off")
        if not said.startswith("Waiting for gdb"):  # as QEMU 7.2 to 10 say it
            raise LabError(f"QEMU does not wait for gdb: {said.strip()}")

    def end_gdb(self) -> None:
        """No gdb any more; the guest goes on, wherever gdb has stopped it. Raises LabError."""
        self._said("gdbserver none")

        async def go_on(client: QMPClient) -> None:
            await client.execute("cont")

        self._talk(go_on, _PATIENCE_S)

    def _said(self, line: str) -> str:
        async def say(client: QMPClient) -> str:
            return str(await client.execute("human-monitor-command", {"command-line": line}))

        return str(self._talk(say, _PATIENCE_S))

    def _talk(self, what: Callable[[QMPClient], Awaitable[Any]], patience_s: float) -> Any:
        """What comes of `what` in a connection of its own. Raises LabError."""
        import asyncio  # this and QMP for the one guest in many that somebody looks into

        from qemu.qmp import QMPError

        try:
            return asyncio.run(asyncio.wait_for(self._connected(what), patience_s))
        except (QMPError, OSError, TimeoutError, RuntimeError) as error:
            # RuntimeError: asyncio.run inside a running loop; the guest's end matters more.
            why = f"{type(error).__name__}: {error}"
            raise LabError(f"QEMU did not tell: {why}") from error

    async def _connected(self, what: Callable[[QMPClient], Awaitable[Any]]) -> Any:
        from qemu.qmp import QMPClient

        client = QMPClient("guest")
        client.await_greeting = client.negotiate = not self._greeted
        await client.connect(self._socket.dup())  # which the client closes
        self._greeted = True
        try:
            return await what(client)
        finally:
            await client.disconnect()

    async def _ask(self, client: QMPClient, times: int, apart_s: float) -> Standing:
        import asyncio

        its = arch.here()
        places = []
        idle = its.idle is not None
        for number in range(times):
            if number:
                await asyncio.sleep(apart_s)
            # Where each processor stands: a loop, a halt, an address outside the kernel.
            registers = str(
                await client.execute("human-monitor-command", {"command-line": "info registers -a"})
            )
            places.append([int(place, 16) for place in its.program_counter.findall(registers)])
            idle = idle and _of_all(its.idle, registers, len(places[-1]))
        status = await client.execute("query-status")
        halted = _of_all(its.halted, registers, len(places[-1]))
        return Standing(places, halted, f"status: {status}\n{registers}\n", idle)


def _of_all(words: re.Pattern[str] | None, registers: str, processors: int) -> bool:
    """Whether QEMU says this of each of its processors."""
    return words is not None and len(words.findall(registers)) == processors > 0
