# SPDX-License-Identifier: MIT
"""``python -m ioxide serve MODULE:HANDLER``."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from ioxide._common.config import ServerConfig
from ioxide._server.handlers import Handler
from ioxide._server.server import Server
from ioxide.errors import ConfigError, ReactorError, RingError

# Each number, switch and choice of the configuration is an option of the same name.
_DEFAULTS = {
    name: value
    for name, value in dataclasses.asdict(ServerConfig()).items()
    if isinstance(value, int | StrEnum)
} | {"max_connections": None}


class _Unusable(Exception):
    """The handler named on the command line cannot be had."""


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "serve",
        help="serve connections with a handler",
        description="Serve connections with an async function that takes an ioxide.Connection; "
        "SIGINT and SIGTERM stop gracefully.",
    )
    parser.add_argument("handler", metavar="MODULE:HANDLER", help="such as examples.hello:handler")
    parser.add_argument("--host", default=ServerConfig().host, help="default: %(default)s")
    for name, value in _DEFAULTS.items():
        how: dict[str, Any]
        if isinstance(value, bool):
            how = {"action": argparse.BooleanOptionalAction}
        elif isinstance(value, StrEnum):
            how = {"choices": [choice.value for choice in type(value)]}
        else:
            how = {"type": int, "metavar": "N"}
        default = value.value if isinstance(value, StrEnum) else value
        option = f"--{name.replace('_', '-')}"
        said = "default: no limit" if default is None else "default: %(default)s"
        parser.add_argument(option, default=default, help=said, **how)
    parser.set_defaults(run=run)


def _load(name: str) -> Handler:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise _Unusable(f"{name!r} is not MODULE:HANDLER, such as examples.hello:handler")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise _Unusable(f"module {module_name!r} cannot be imported: {error}") from error
    handler: Handler | None = getattr(module, attribute, None)
    if not callable(handler):
        raise _Unusable(f"module {module_name!r} has no function {attribute!r}")
    return handler


def _values(args: argparse.Namespace) -> dict[str, Any]:
    """The options as arguments of `ServerConfig`."""
    given = {name: getattr(args, name) for name in _DEFAULTS}
    for name, default in _DEFAULTS.items():
        if isinstance(default, StrEnum):
            given[name] = type(default)(given[name])
    return given


def run(args: argparse.Namespace) -> int:
    """Serve until a signal: 0 after a graceful stop, 1 when that failed, 2 for bad values."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        config = ServerConfig(host=args.host, **_values(args))
        handler = _load(args.handler)
    except (ConfigError, _Unusable) as error:
        print(f"ioxide serve: {error}", file=sys.stderr)
        return 2

    with _signals() as signals:
        server = Server(handler, config)
        try:
            server.start()
        except (RingError, OSError) as error:
            print(f"ioxide serve: {error.strerror or error}", file=sys.stderr)
            return 1
        print(f"serving on {config.host} port {server.port}", flush=True)
        try:
            signals.stop_on_one(server)
        except ReactorError as error:
            print(f"ioxide serve: {error}", file=sys.stderr)
            return 1
    return 0


class _Signals:
    """The main thread sleeps here until SIGINT or SIGTERM comes, or the server ends."""

    def __init__(self, bell: socket.socket, ringer: socket.socket) -> None:
        self._bell, self._ringer = bell, ringer
        self._seen: list[int] = []

    def see(self, number: int, _frame: object) -> None:
        """Handle one of the signals."""
        # Not an Event: a second signal inside its set() would wait for the lock of the first one.
        self._seen.append(number)

    def stop_on_one(self, server: Server) -> None:
        """Sleep until a signal comes, or the server has ended by itself; then stop it.

        Raises ReactorError when a reactor ended by a fault.
        """
        watch = threading.Thread(target=self._watch, args=(server,), name="ioxide-serve-end")
        watch.start()
        try:
            while not self._seen and not server.wait(0):
                self._bell.recv(64)
        finally:
            try:
                server.stop()  # the other reactors, where one ended by a fault
            finally:
                watch.join()

    def _watch(self, server: Server) -> None:
        """Wake the main thread when the server has ended."""
        with contextlib.suppress(ReactorError):
            server.wait()
        with contextlib.suppress(BlockingIOError):  # full: it wakes anyway
            self._ringer.send(b"\0")


@contextlib.contextmanager
def _signals() -> Iterator[_Signals]:
    """SIGINT and SIGTERM wake the main thread, whichever thread the kernel gives them to.

    Python runs their handler on the main thread, but does not wake it when another one was
    interrupted. The wakeup descriptor does: the signal is written to it wherever it arrives.
    """
    bell, ringer = socket.socketpair()
    with bell, ringer:
        ringer.setblocking(False)
        signals = _Signals(bell, ringer)
        before = signal.set_wakeup_fd(ringer.fileno(), warn_on_full_buffer=False)
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signals.see)
            yield signals
        finally:
            signal.set_wakeup_fd(before)  # the handlers stay: no signal may interrupt the stop
