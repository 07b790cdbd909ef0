# SPDX-License-Identifier: MIT
"""``python -m bench.peer LOOP STYLE``: the plaintext server as a program on any asyncio loop.

LOOP is one of `LOOPS`; STYLE is protocol, streams or uvicorn (an ASGI app served by uvicorn with
httptools).  It says its port and obeys ``stats`` as `bench.serve` does, with what can be known of
every loop; with ``--control`` it obeys `bench.serve`'s other commands on that port.  It imports
ioxide only to run on it: this file serves under every Python that a peer needs.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import ctypes
import functools
import importlib
import json
import resource
import shutil
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench.scenes import PLAIN, SCENES, Scene

LOOPS = {
    "asyncio": "asyncio:SelectorEventLoop",
    "uvloop": "uvloop:new_event_loop",
    "ioxide": "ioxide:new_event_loop",
    "rloop": "rloop:new_event_loop",
    "uringcore": "uringcore:UringEventLoop",
}
BACKLOG = 1024
"""Connections that may wait: the load generator opens all of a scene before it sends."""
Serving = Callable[[argparse.Namespace, socket.socket], Awaitable[Callable[[], int]]]
"""Begins to serve on a listener, and returns what counts the connections of this moment."""


def say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def used() -> dict[str, float]:
    """What this process has used of the machine, all its threads together."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "switches": usage.ru_nvcsw + usage.ru_nivcsw,
    }


def certificate(scene: Scene) -> tuple[str, str] | None:
    """Files of a chain and a key for a scene over TLS, which nobody verifies."""
    if not scene.tls:
        return None
    trustme = importlib.import_module("trustme")
    directory = Path(tempfile.mkdtemp(prefix="ioxide-bench-"))
    atexit.register(shutil.rmtree, directory)
    issued = trustme.CA().issue_cert("localhost")
    issued.private_key_pem.write_to_path(str(directory / "key"))
    for part in issued.cert_chain_pems:
        part.write_to_path(str(directory / "chain"), append=True)
    return str(directory / "chain"), str(directory / "key")


def context(scene: Scene) -> ssl.SSLContext | None:
    files = certificate(scene)
    if files is None:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(*files)
    return made


def protocol_of(scene: Scene) -> type[asyncio.Protocol]:
    """A protocol that answers each request of the scene, and counts its connections in `now`."""
    answer, size = scene.answer + b"x" * scene.download, len(scene.request) + scene.upload

    class Simple(asyncio.Protocol):
        """Answers whatever arrives at once; the load generator sends a request in one segment."""

        now = 0

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            Simple.now += 1
            self.write = transport.write  # type: ignore[attr-defined]

        def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
            Simple.now -= 1

        def data_received(self, data: bytes) -> None:  # noqa: ARG002
            self.write(answer)

    class Counting(Simple):
        """Answers once the bytes of a whole request have come."""

        got = 0

        def data_received(self, data: bytes) -> None:
            self.got += len(data)
            while self.got >= size:
                self.got -= size
                self.write(answer)

    return Simple if scene.simple else Counting


async def protocol(options: argparse.Namespace, listener: socket.socket) -> Callable[[], int]:
    scene = SCENES[options.scene]
    factory: Any = protocol_of(scene)
    loop = asyncio.get_running_loop()
    # By address, as most programs do: ours serves a listener that was given another way.
    address = listener.getsockname()
    await loop.create_server(factory, *address, backlog=BACKLOG, ssl=context(scene))
    simple = factory if scene.simple else factory.__base__
    return lambda: int(simple.now)


async def streams(options: argparse.Namespace, listener: socket.socket) -> Callable[[], int]:
    """As `bench.handlers`, with asyncio's own streams."""
    scene = SCENES[options.scene]
    answer, size = scene.answer + b"x" * scene.download, len(scene.request) + scene.upload
    served: set[object] = set()

    async def simple(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(writer)
        while await reader.read(1 << 16):
            writer.write(answer)
        writer.close()
        served.discard(writer)

    async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(writer)
        got = 0
        while data := await reader.read(1 << 16):
            got += len(data)
            while got >= size:
                got -= size
                writer.write(answer)
        writer.close()
        served.discard(writer)

    handler = simple if scene.simple else counting
    address = listener.getsockname()
    await asyncio.start_server(handler, *address, backlog=BACKLOG, ssl=context(scene))
    return lambda: len(served)


def application(scene: Scene, *, date: bool = False) -> Callable[..., Awaitable[None]]:
    """An ASGI app that reads a request's body, if it has one, and answers.

    With `date` it sends a Date that stays the same, to a server that would add one that changes.
    """
    headers = [(b"content-length", b"%d" % len(scene.body))]
    if date:
        headers.append((b"date", b"Sun, 29 Nov 2026 00:00:00 GMT"))
    head = {"type": "http.response.start", "status": 200, "headers": headers}
    body = {"type": "http.response.body", "body": scene.body}

    async def app(_: object, receive: Callable[[], Awaitable[dict[str, Any]]], send: Any) -> None:
        if scene.upload:
            while (await receive()).get("more_body"):
                pass
        await send(head)
        await send(body)

    return app


async def uvicorn(options: argparse.Namespace, listener: socket.socket) -> Callable[[], int]:
    """uvicorn, unmodified, on the loop that runs."""
    scene = SCENES[options.scene]
    chain, key = certificate(scene) or (None, None)
    module = importlib.import_module("uvicorn")
    config = module.Config(
        application(scene),
        http=options.http,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        ssl_certfile=chain,
        ssl_keyfile=key,
    )
    server = module.Server(config)
    listener.listen(BACKLOG)
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
    """A socket that holds the port: another one may listen there beside it (see
    `bench.process.reserved_ports`), or it may itself."""
    # The protocol by name: asyncio sets TCP_NODELAY only where a socket says that it is TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.setblocking(False)
    return listener


async def serve(
    options: argparse.Namespace, begin: Callable[[socket.socket], Awaitable[Callable[[], int]]]
) -> None:
    """Until standard input ends."""
    loop = asyncio.get_running_loop()
    listener = _listener(options.port)
    port = listener.getsockname()[1]
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

    say({"port": port})
    threading.Thread(target=obey, daemon=True).start()
    await ended.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.peer", description=__doc__)
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("style", choices=STYLES)
    parser.add_argument("--http", default="httptools", help="uvicorn's parser")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--scene", choices=SCENES, default=PLAIN.name)
    parser.add_argument("--control", type=int, help="the port that commands come in on")
    parser.add_argument("--callgrind", metavar="LIBRARY")
    options = parser.parse_args()
    module, _, name = LOOPS[options.loop].partition(":")
    factory = getattr(importlib.import_module(module), name)
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(options, functools.partial(STYLES[options.style], options)))


if __name__ == "__main__":
    main()
