# SPDX-License-Identifier: MIT
"""What QEMU itself can tell about a guest that has fallen silent."""

from __future__ import annotations

import socket

from .. import arch
from .standing import Standing

_PATIENCE_S = 5.0


class Monitor:
    """QMP on a socket; may be asked more than once, in which QEMU greets only the first time."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._greeted = False

    def describe(self, *, times: int = 1, apart_s: float = 0.0) -> Standing:
        """The machine's state and its processors' registers, asked for so often, so many seconds
        apart.

        Never raises for a QEMU that does not answer: the text says so.
        """
        patience = _PATIENCE_S + times * apart_s
        import asyncio  # this and QMP for the one guest in many that hangs

        from qemu.qmp import QMPError

        try:
            return asyncio.run(asyncio.wait_for(self._ask(times, apart_s), patience))
        except (QMPError, OSError, TimeoutError, RuntimeError) as error:
            # RuntimeError: asyncio.run inside a running loop; the guest's end matters more.
            return Standing([], False, f"QEMU did not tell: {type(error).__name__}: {error}\n")

    async def _ask(self, times: int, apart_s: float) -> Standing:
        import asyncio

        from qemu.qmp import QMPClient

        its = arch.here()
        client = QMPClient("guest")
        client.await_greeting = client.negotiate = not self._greeted
        await client.connect(self._socket.dup())  # which the client closes
        self._greeted = True
        try:
            places = []
            for number in range(times):
                if number:
                    await asyncio.sleep(apart_s)
                # Where each processor stands: a loop, a halt, an address outside the kernel.
                registers = str(
                    await client.execute(
                        "human-monitor-command", {"command-line": "info registers -a"}
                    )
                )
                places.append([int(place, 16) for place in its.program_counter.findall(registers)])
            status = await client.execute("query-status")
            waiting = its.halted.findall(registers) if its.halted else ()
            halted = len(waiting) == len(places[-1]) > 0
            return Standing(places, halted, f"status: {status}\n{registers}\n")
        finally:
            await client.disconnect()
