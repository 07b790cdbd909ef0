# SPDX-License-Identifier: MIT
"""``python -m bench.peer LOOP STYLE``: the plaintext server as a program on any asyncio loop.

LOOP is asyncio, uvloop or ioxide; STYLE is protocol, streams or uvicorn (an ASGI app served by
uvicorn with httptools).  It says its port and obeys ``stats`` as `bench.serve` does, with what can
be known of every loop; with ``--control`` it obeys `bench.serve`'s other commands on that port.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import functools
import importlib
import json
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from bench.handlers import ANSWER
from bench.serve import say, used

BODY = b"Hello, World!"
ASGI_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n" + BODY
"""What uvicorn makes of `app()` without its own Server and Date headers."""
LOOPS = {
    "asyncio": "asyncio:SelectorEventLoop",
    "uvloop": "uvloop:new_event_loop",
    "ioxide": "ioxide:new_event_loop",
}
Serving = Callable[[argparse.Namespace, socket.socket], Awaitable[Callable[[], int]]]
"""Begins to serve on a listener, and returns what counts the connections of this moment."""


class Plaintext(asyncio.Protocol):
    """Answers whatever arrives at once; the load generator sends a request in one segment."""

    now = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Plaintext.now += 1
        self.write = transport.write  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        Plaintext.now -= 1

    def data_received(self, data: bytes) -> None:  # noqa: ARG002
        self.write(ANSWER)


async def protocol(_: argparse.Namespace, listener: socket.socket) -> Callable[[], int]:
    await asyncio.get_running_loop().create_server(Plaintext, sock=listener)
    return lambda: Plaintext.now


async def streams(_: argparse.Namespace, listener: socket.socket) -> Callable[[], int]:
    """As `bench.handlers.plaintext`, with asyncio's own streams."""
    served: set[object] = set()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(writer)
        while await reader.read(1 << 16):
            writer.write(ANSWER)
        writer.close()
        served.discard(writer)

    await asyncio.start_server(handler, sock=listener)
    return lambda: len(served)


async def app(scope: dict[str, Any], receive: object, send: Callable[..., Awaitable[None]]) -> None:  # noqa: ARG001
    """Hello, World! in ASGI."""
    headers = [(b"content-length", b"13")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


async def uvicorn(options: argparse.Namespace, listener: socket.socket) -> Callable[[], int]:
    """uvicorn, unmodified, on the loop that runs."""
    module = importlib.import_module("uvicorn")
    config = module.Config(
        app,
        http=options.http,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
    )
    server = module.Server(config)
    server.serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    return lambda: len(server.server_state.connections)


STYLES: dict[str, Serving] = {"protocol": protocol, "streams": streams, "uvicorn": uvicorn}


class Control(asyncio.Protocol):
    """Obeys the commands of one who measures, over the loop itself (see `bench.serve`)."""

    def __init__(self, callgrind: ctypes.CDLL | None, counted: Callable[[], int]) -> None:
        self._callgrind = callgrind
        self._counted = counted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = transport.write  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._write(json.dumps(self._obey(data.decode().strip())).encode() + b"\n")

    def _obey(self, line: str) -> dict[str, Any]:
        command, _, rest = line.partition(" ")
        if command == "stats":
            return {**used(), "connections_now": self._counted() + 1}  # this one as well
        if command == "count" and self._callgrind is not None:
            self._callgrind.start_counting()
            return {}
        if command == "dump" and self._callgrind is not None:
            self._callgrind.dump_counts(rest.encode())
            return {}
        return {"error": f"no such command here: {line}"}


def _listener(port: int) -> socket.socket:
    # The protocol by name: asyncio sets TCP_NODELAY only where a socket says that it is TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(1024)
    listener.setblocking(False)
    return listener


async def serve(
    options: argparse.Namespace, begin: Callable[[socket.socket], Awaitable[Callable[[], int]]]
) -> None:
    """Until standard input ends."""
    loop = asyncio.get_running_loop()
    listener = _listener(options.port)
    counted = await begin(listener)
    if options.control:
        callgrind = ctypes.CDLL(options.callgrind) if options.callgrind else None
        if callgrind is not None and not callgrind.running_on_valgrind():
            raise SystemExit("--callgrind is for a process that runs in valgrind")
        control = functools.partial(Control, callgrind, counted)
        await loop.create_server(control, sock=_listener(options.control))
        await loop.create_future()  # until it is killed: in valgrind no other thread runs
    ended = asyncio.Event()

    def obey() -> None:
        for line in sys.stdin:
            known = line.strip() == "stats"
            say({**used(), "connections_now": counted()} if known else {"error": line.strip()})
        loop.call_soon_threadsafe(ended.set)

    say({"port": listener.getsockname()[1]})
    threading.Thread(target=obey, daemon=True).start()
    await ended.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.peer", description=__doc__)
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("style", choices=STYLES)
    parser.add_argument("--http", default="httptools", help="uvicorn's parser")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--control", type=int, help="the port that commands come in on")
    parser.add_argument("--callgrind", metavar="LIBRARY")
    options = parser.parse_args()
    module, _, name = LOOPS[options.loop].partition(":")
    factory = getattr(importlib.import_module(module), name)
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(options, functools.partial(STYLES[options.style], options)))


if __name__ == "__main__":
    main()
