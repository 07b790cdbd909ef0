# SPDX-License-Identifier: MIT
"""What QEMU itself can tell about a guest that has fallen silent."""

from __future__ import annotations

import asyncio
import socket

from qemu.qmp import QMPClient, QMPError

_PATIENCE_S = 5.0


def describe(monitor: socket.socket) -> str:
    """The machine's state and its processors' registers, as text for a person.

    Never raises for a QEMU that does not answer: the text says so.
    """
    try:
        return asyncio.run(asyncio.wait_for(_ask(monitor), _PATIENCE_S))
    except (QMPError, OSError, TimeoutError, RuntimeError) as error:
        # RuntimeError: asyncio.run inside a running loop; the guest's end matters more.
        return f"QEMU did not tell: {type(error).__name__}: {error}\n"


async def _ask(monitor: socket.socket) -> str:
    client = QMPClient("guest")
    await client.connect(monitor)
    try:
        status = await client.execute("query-status")
        # Where each processor stands: a loop, a halt, an address outside the kernel.
        registers = await client.execute(
            "human-monitor-command", {"command-line": "info registers -a"}
        )
        return f"status: {status}\n{registers}\n"
    finally:
        await client.disconnect()
