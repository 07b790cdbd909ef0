# SPDX-License-Identifier: MIT
"""The memory of a machine that ends by itself, kept until it is in a file.

A kernel that panics restarts, and QEMU would end with it. Told to pause instead (set-action, QEMU
6.0 and later), QEMU still has the memory, and is ended here once that is written.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import LabError

DUMP = "dump-guest-memory"


def dump_arguments(file: Path) -> Mapping[str, Any]:
    """What QEMU's command is told.

    An ELF core, because drgn cannot read the kdump files of QEMU 7.2: libkdumpfile finds no
    machine's name in them ("KDUMP_ATTR_ARCH_NAME: Key has no value", drgn 0.3.0).
    """
    return {"paging": False, "protocol": f"file:{file.absolute()}"}


class MemoryAtEnd:
    """Waits for a machine to end by itself, by a monitor of its own."""

    def __init__(self, sock: socket.socket, file: Path) -> None:
        """`file` is where the memory is to go."""
        self.file = file
        self.why = ""
        """Why there is no file although the machine has ended by itself; empty if that is not
        known."""
        self.written = False
        self._socket = sock
        self._thread = threading.Thread(target=self._run, name="memory-at-end", daemon=True)

    def start(self) -> None:
        """Begin to wait."""
        self._thread.start()

    def join(self) -> None:
        """Return once the machine's end is dealt with; for a machine that has ended."""
        self._thread.join()

    def _run(self) -> None:
        try:
            with self._socket, self._socket.makefile("rb") as lines:
                self._keep(lines)
        except (OSError, ValueError, LabError) as error:
            self.why = str(error)
        if not self.written:
            with suppress(OSError):
                self.file.unlink(missing_ok=True)

    def _keep(self, lines: Any) -> None:
        self._ask(lines, "qmp_capabilities", {})
        self._ask(lines, "set-action", {"shutdown": "pause"})
        while (line := lines.readline()) and json.loads(line).get("event") != "SHUTDOWN":
            pass
        if not line:
            return  # it was ended, and did not end by itself
        try:
            self._ask(lines, DUMP, dump_arguments(self.file))
            self.written = True
        finally:
            self._ask(lines, "quit", {})

    def _ask(self, lines: Any, command: str, arguments: Mapping[str, Any]) -> None:
        """Raises LabError for what QEMU does not do, and where it ends before it has answered."""
        words = json.dumps({"execute": command, "arguments": arguments})
        self._socket.sendall(words.encode() + b"\n")
        while line := lines.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise LabError(f"QEMU does not do {command}: {answer['error'].get('desc')}")
            if "return" in answer:
                return
        raise LabError(f"QEMU ended before it had done {command}")


def end_of(console: Path) -> Path:
    """Where the memory goes of the machine that has this console."""
    return console.with_name(console.stem + "-end.core")


@contextmanager
def memory_at_end(sock: socket.socket, file: Path) -> Iterator[MemoryAtEnd]:
    """Keep the memory of a machine that ends within the block. The machine has to have ended when
    the block is left."""
    kept = MemoryAtEnd(sock, file)
    kept.start()
    try:
        yield kept
    finally:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        kept.join()
