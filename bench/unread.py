# SPDX-License-Identifier: MIT
"""``make bench-unread``: the rate of a busy connection alone, and beside 10,000 that are paused.

Each of the paused connections has sent a byte that nobody reads. Two servers run at the same time,
one with them and one without, and are measured in turn: what drifts drifts for both. On a machine
that does other work as well, what a message costs of the server's CPU tells more than the rate.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import socket
import statistics
import time
from contextlib import ExitStack
from typing import Any

import ioxide
from bench.errors import Void
from bench.memory import Echo, raise_limit

PAUSED = 10_000
ROUNDS = 20
SECONDS = 0.5
MESSAGE = b"x" * 64


class Paused(asyncio.Protocol):
    """Pauses in connection_made(), as a proxy does until its other side is connected."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()


def serve(paused: int, pipe: Any) -> None:
    """Echo on the first connection, pause `paused` more, then say on request what CPU was used."""
    raise_limit()

    async def main() -> None:
        made: list[asyncio.Protocol] = []
        complete = asyncio.Event()

        def protocol() -> asyncio.Protocol:
            made.append(Paused() if made else Echo())
            if len(made) == 1 + paused:
                complete.set()
            return made[-1]

        loop = asyncio.get_running_loop()
        server = await loop.create_server(protocol, "127.0.0.1", 0, backlog=1024)
        pipe.send(server.sockets[0].getsockname()[1])
        await complete.wait()
        pipe.send(len(made) - 1)
        with contextlib.suppress(EOFError):
            while True:
                await asyncio.to_thread(pipe.recv)
                pipe.send(time.process_time())
        server.close()

    ioxide.run(main())


class Server:
    """A process that serves, and a busy connection to it."""

    def __init__(self, stack: ExitStack, paused: int) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(paused, theirs))
        process.start()
        theirs.close()
        stack.callback(process.join)
        self._pipe = stack.enter_context(ours)
        try:
            address = ("127.0.0.1", ours.recv())
            self._busy = stack.enter_context(socket.create_connection(address))
            for _ in range(paused):
                stack.enter_context(socket.create_connection(address)).sendall(b"?")
            if ours.recv() != paused:
                raise Void("the server has not accepted every connection")
            self.rate(SECONDS / 5)
        except EOFError:
            raise Void(f"the server with {paused} paused connections has ended") from None

    def _cpu(self) -> float:
        self._pipe.send("CPU")
        return float(self._pipe.recv())

    def rate(self, seconds: float) -> tuple[float, float]:
        """Messages a second that come back, one after the other; CPU seconds of each."""
        count, used, begin = 0, self._cpu(), time.perf_counter()
        while (took := time.perf_counter() - begin) < seconds:
            self._busy.sendall(MESSAGE)
            if self._busy.recv(len(MESSAGE), socket.MSG_WAITALL) != MESSAGE:
                raise Void("another message came back than was sent")
            count += 1
        return count / took, (self._cpu() - used) / count


def _spread(values: list[float]) -> str:
    low, median, high = statistics.quantiles(values, n=4)
    return f"{median:.2f} [{low:.2f} .. {high:.2f}]"


def run(paused: int = PAUSED, rounds: int = ROUNDS, seconds: float = SECONDS) -> int:
    """Print both rates, and what of one the other is; nothing is judged."""
    raise_limit()
    with ExitStack() as stack:
        alone, beside = Server(stack, 0), Server(stack, paused)
        pairs = [(alone.rate(seconds), beside.rate(seconds)) for _ in range(rounds)]
    print(f"alone: {statistics.median(one[0] for one, _ in pairs):.0f} messages/s")
    print(
        f"beside {paused} paused: {statistics.median(other[0] for _, other in pairs):.0f}, "
        f"{_spread([other[0] / one[0] for one, other in pairs])} of the rate, "
        f"{_spread([other[1] / one[1] for one, other in pairs])} of the CPU a message, "
        f"{rounds} rounds"
    )
    return 0
