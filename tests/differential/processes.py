# SPDX-License-Identifier: MIT
"""Scenarios that need a process of their own: forks, and loops that change threads.

What happens is in the steps' names here, not in the connections' vocabulary: `way` says which.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.differential.interpreter import HOST, NewLoop
from tests.differential.observer import describe
from tests.differential.scenario import Scenario

WORKERS = 3
CONNECTIONS = 90


def _serve(listener: socket.socket, new_loop: NewLoop, name: bytes, *, busy: bool) -> None:
    async def handler(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(name)
        writer.close()

    async def main() -> None:
        await asyncio.start_server(handler, sock=listener)
        await asyncio.sleep(0.05)
        if busy:
            time.sleep(60)
        await asyncio.sleep(60)

    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


def _ask(address: tuple[str, int], limit: float) -> str:
    with socket.create_connection(address) as client:
        client.settimeout(limit)
        try:
            return client.recv(9).decode() or "FIN"
        except OSError as error:
            return describe(error) or ""


def workers(way: str, new_loop: NewLoop, patience: float) -> dict[str, Any]:
    """Forked workers share a listener; with `busy`, the first of them stops in a callback."""
    listener = socket.create_server((HOST, 0), backlog=512)
    children = []
    try:
        for number in range(WORKERS):
            child = os.fork()
            if not child:
                try:
                    busy = way == "busy" and number == 0
                    _serve(listener, new_loop, b"%d" % number, busy=busy)
                finally:
                    os._exit(0)
            children.append(child)
        time.sleep(0.5 * patience)
        # All at once, as a burst finds them; then one after the other.
        answers = Counter(_ask(listener.getsockname(), patience) for _ in range(CONNECTIONS))
        least = min(answers[str(number)] for number in range(way == "busy", WORKERS))
        served = sum(answers[str(number)] for number in range(WORKERS))
        return {
            # What a busy worker may hold back: one connection an armed accept.
            "served": served >= CONNECTIONS - (way == "busy"),
            "each worker has at least a tenth": least >= CONNECTIONS // 10,
            "listener": "blocking" if os.get_blocking(listener.fileno()) else "non-blocking",
        }
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        listener.close()


def _in_thread(action: Callable[[], Any]) -> Any:
    box: list[Any] = []

    def body() -> None:
        try:
            box.append(action())
        except BaseException as error:
            box.append(f"raised {describe(error)}")

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(10)
    return box[0] if box else "never ended"


def _somewhere(where: str, action: Callable[[], Any]) -> Any:
    """Run it here (``h``) or in a new thread (``t``); what it raised is a value."""
    if where == "t":
        return _in_thread(action)
    try:
        return action()
    except BaseException as error:
        return f"raised {describe(error)}"


async def _echo() -> str:
    """A program that uses the loop: a connection to itself."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(handler, HOST, 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"there and back")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    return answer.decode()


def threads(way: str, new_loop: NewLoop, patience: float) -> dict[str, Any]:
    """A loop is made, run and closed; each letter of `way` says in which thread."""
    made, runs, closed = way[0], way[1:-1], way[-1]
    loop = _somewhere(made, new_loop)
    if isinstance(loop, str):
        return {"made": loop}
    ran = [
        _somewhere(where, lambda: loop.run_until_complete(asyncio.wait_for(_echo(), 2 * patience)))
        for where in runs
    ]
    called = _from_outside(loop, patience)
    return {"ran": ran, "called from outside": called, "closed": _somewhere(closed, loop.close)}


def _from_outside(loop: asyncio.AbstractEventLoop, patience: float) -> Any:
    """As aiosmtpd and ipykernel do: it runs over there, and is called from here."""
    thread = threading.Thread(target=lambda: _somewhere("h", loop.run_forever), daemon=True)
    thread.start()
    future = asyncio.run_coroutine_threadsafe(asyncio.sleep(0, "ran"), loop)
    try:
        answer = future.result(2 * patience)
    except Exception as error:
        return f"raised {describe(error)}"
    loop.call_soon_threadsafe(loop.stop)
    thread.join(2 * patience)
    return "does not stop" if thread.is_alive() else answer


def fork(way: str, new_loop: NewLoop, patience: float) -> dict[str, Any]:
    """A loop is made, and ``run`` first in the child of a fork; with ``made``, it is made there."""
    loop = new_loop() if way == "run" else None
    out, into = os.pipe()
    child = os.fork()
    if not child:
        try:
            it = loop or new_loop()
            program = asyncio.wait_for(_echo(), 2 * patience)
            answer = _somewhere("h", lambda: it.run_until_complete(program))
            os.write(into, f"{answer}, closed {_somewhere('h', it.close)}".encode())
        finally:
            os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as file:
        answer = file.read().decode()
    _, status = os.waitpid(child, 0)
    ours = None if loop is None else _somewhere("h", loop.close)
    return {"child": answer, "status": status, "closed here": ours}


def run(scenario: Scenario, new_loop: NewLoop, patience: float) -> dict[str, Any]:
    """What is seen of `scenario`."""
    match scenario.kind:
        case "workers":
            return workers(scenario.way, new_loop, patience)
        case "threads":
            return threads(scenario.way, new_loop, patience)
        case _:
            return fork(scenario.way, new_loop, patience)
