# SPDX-License-Identifier: MIT
"""A process whose three forked workers share one listener; prints, as JSON, what each of them did.

``spread`` connects 300 clients one by one, and 300 at once to workers that need 2 ms for each.
``busy`` has workers that block for as long as they have a client.  A second argument of ``asyncio``
runs the same on asyncio's own loop, for comparison.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

import ioxide
from tests.support import TIMEOUT

WORKERS = 3
STEP = 0.002
"""Seconds that a worker needs for a client: far more than a processor that others use as well makes
it wait, so that who is free takes the next."""

_running: set[int] = set()
"""The workers' process ids."""


class _Worker:
    """A forked process; `tell` releases it from a step that blocks, `hear` is what it says."""

    def __init__(self, name: int, listener: socket.socket, blocks: bool) -> None:
        gate, self._gate = os.pipe()
        self._out, out = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                with asyncio.Runner(loop_factory=_new_loop()) as runner:
                    runner.run(_work(name, listener, gate if blocks else -1, out))
            finally:
                os._exit(0)  # not through the parent's stack
        _running.add(self.pid)
        os.close(gate)
        os.close(out)
        assert b"ready" == self.hear("its start")

    def tell(self) -> None:
        os.write(self._gate, b"x")

    def hear(self, what: str) -> bytes:
        assert select.select([self._out], [], [], TIMEOUT)[0], f"a worker did not tell of {what}"
        return os.read(self._out, 4096)

    def fileno(self) -> int:
        return self._out

    def end(self) -> dict[str, int]:
        """Its counters."""
        os.kill(self.pid, signal.SIGTERM)
        counters: dict[str, int] = json.loads(self.hear("its counters"))
        os.waitpid(self.pid, 0)
        _running.remove(self.pid)
        return counters


def _new_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    return asyncio.SelectorEventLoop if "asyncio" in sys.argv else ioxide.new_event_loop


async def _work(name: int, listener: socket.socket, gate: int, out: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def block(transport: asyncio.WriteTransport) -> None:
        if gate >= 0:
            os.write(out, b"taken")
            os.read(gate, 1)
        else:
            time.sleep(STEP)
        transport.write(b"%d" % name)
        transport.close()

    class Serve(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.WriteTransport)
            loop.call_soon(block, transport)  # as the first step of a handler's task

    server = await loop.create_server(Serve, sock=listener, backlog=1024)
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    os.write(out, b"ready")
    await ended.wait()
    server.close()
    counters = {}
    if isinstance(loop, ioxide.Loop):
        await asyncio.sleep(0.01)  # what was written last is on its way
        counters = dataclasses.asdict(loop.driver.counters())
    os.write(out, json.dumps(counters).encode())


def _connect(listener: socket.socket) -> socket.socket:
    return socket.create_connection(listener.getsockname(), TIMEOUT)


def _spread(listener: socket.socket) -> dict[str, object]:
    """300 clients one after the other, and 300 at once: how many each worker took."""
    workers = [_Worker(name, listener, False) for name in range(WORKERS)]

    def count(answers: list[bytes]) -> list[int]:
        return [answers.count(b"%d" % name) for name in range(WORKERS)]

    one_by_one = []
    for _ in range(300):
        with _connect(listener) as client:
            one_by_one.append(client.recv(1))
    clients = [_connect(listener) for _ in range(300)]
    at_once = [client.recv(1) for client in clients]
    for client in clients:
        client.close()
    return {
        "one by one": count(one_by_one),
        "at once": count(at_once),
        "counters": [worker.end() for worker in workers],
    }


def _busy(listener: socket.socket) -> dict[str, object]:
    """Each worker blocks while it has a client: the free ones take what comes."""
    free = [_Worker(name, listener, True) for name in range(WORKERS)]
    workers = tuple(free)
    clients = []
    for number in range(WORKERS):
        clients.append(_connect(listener))
        ready = select.select(free, [], [], TIMEOUT)[0]
        assert ready, f"no free worker took client {number}"
        for worker in ready:
            worker.hear("a client")
            free.remove(worker)
    clients += [_connect(listener), _connect(listener)]
    # Both wait in the backlog now.  Whoever is released takes one of them and blocks again.
    for worker in workers[:2]:
        worker.tell()
        assert b"taken" == worker.hear("a client that another, busy one might hold back")
    for worker in workers:
        worker.tell()
    for worker in workers[:2]:
        worker.tell()
    answers = sorted(client.recv(1).decode() for client in clients)
    for client in clients:
        client.close()
    return {"answers": answers, "counters": [worker.end() for worker in workers]}


def _main() -> None:
    try:
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as shared:
            print(json.dumps((_busy if sys.argv[1] == "busy" else _spread)(shared)))
    finally:
        for pid in _running:  # which hold our output open
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    _main()
