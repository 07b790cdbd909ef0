# SPDX-License-Identifier: MIT
"""``python -m bench.serve``: one server under test, in a process of its own.

It says ``{"port": ...}`` and then obeys commands, each a line, answered by a line of JSON.
``stats`` tells what was used and counted so far, ``count`` and ``dump NAME`` are for callgrind.
They come in on standard input, at whose end the server stops, or over a connection to the port
``--control``, which the reactor itself serves: valgrind 3.19 does not know that io_uring_enter(2)
blocks, and lets no other thread run meanwhile, not even to say the port.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import dataclasses
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

import ioxide
from bench.handlers import handler_of
from bench.peer import say, used
from bench.scenes import PLAIN, SCENES


def value_of(text: str) -> object:
    """A configuration value as the command line gives it."""
    if text in ("True", "False"):
        return text == "True"
    return int(text) if text.lstrip("-").isdigit() else text


def settings(pairs: Iterable[str]) -> dict[str, object]:
    """``name=value`` pairs as arguments of `ioxide.ServerConfig`."""
    split = (pair.partition("=") for pair in pairs)
    values = {name: value_of(value) for name, _, value in split}
    if "continuation_mode" in values:
        values["continuation_mode"] = ioxide.ContinuationMode(str(values["continuation_mode"]))
    return values


class Handles:
    """Counts the asyncio handles that are made in this process, timers' included."""

    def __init__(self) -> None:
        self.made = 0
        original = asyncio.Handle.__init__

        def counted(handle: Any, *args: Any, **kwargs: Any) -> None:
            self.made += 1
            original(handle, *args, **kwargs)

        asyncio.Handle.__init__ = counted  # type: ignore[assignment,method-assign]


class Obeying:
    """Carries out commands."""

    def __init__(self, counted: Callable[[], ioxide.Counters], handles: Handles | None) -> None:
        self.counted = counted
        self._handles = handles
        self.callgrind: ctypes.CDLL | None = None

    def __call__(self, line: str) -> dict[str, Any]:
        command, _, rest = line.strip().partition(" ")
        if command == "stats":
            made = {} if self._handles is None else {"handles": self._handles.made}
            return {**used(), **dataclasses.asdict(self.counted()), **made}
        if command == "count" and self.callgrind is not None:
            self.callgrind.start_counting()
            return {}
        if command == "dump" and self.callgrind is not None:
            self.callgrind.dump_counts(rest.encode())
            return {}
        return {"error": f"no such command here: {line.strip()}"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.serve", description=__doc__)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--count-handles", action="store_true")
    parser.add_argument("--callgrind", metavar="LIBRARY")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--control", type=int)
    parser.add_argument("--scene", choices=SCENES, default=PLAIN.name)
    options = parser.parse_args()
    handles = Handles() if options.count_handles else None
    obey = Obeying(lambda: server.stats(), handles)
    if options.callgrind:
        obey.callgrind = ctypes.CDLL(options.callgrind)
        if not obey.callgrind.running_on_valgrind():
            parser.error("--callgrind is for a process that runs in valgrind")

    async def control(conn: ioxide.Connection) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ioxide.Loop)
        obey.counted = loop.driver.counters  # in valgrind the server may not know its reactor yet
        while line := await conn.recv():
            conn.write(json.dumps(obey(line.decode())).encode() + b"\n")

    serving = handler_of(SCENES[options.scene])

    def handler(conn: ioxide.Connection) -> Any:
        # Not a coroutine of its own: what serves is to be the handler itself, without a frame more.
        return control(conn) if conn.sockname[1] == options.control else serving(conn)

    config = ioxide.ServerConfig(
        port=options.port,
        extra_ports=(options.control,) if options.control else (),
        **settings(options.set),  # type: ignore[arg-type]
    )
    server = ioxide.Server(handler, config)
    with server:
        say({"port": server.port})
        for line in sys.stdin:
            say(obey(line))


if __name__ == "__main__":
    main()
