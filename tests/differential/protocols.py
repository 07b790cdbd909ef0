# SPDX-License-Identifier: MIT
"""The protocols of a scenario: they note what they are told, and do what it has them do."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Protocol

from tests.differential.observer import Log, describe
from tests.differential.peer import Peer
from tests.differential.scenario import Scenario, Step


class Tls:
    """The two contexts of a certificate for localhost."""

    def __init__(self, pem: str) -> None:
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(pem)
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.client.load_verify_locations(pem)
        self.client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the leaf is its own anchor


class Program(Protocol):
    """What a protocol asks of the run that it belongs to."""

    scenario: Scenario

    def attempt(self, step: Step, action: Callable[[], object], /) -> None: ...
    def on_transport(self, step: Step, transport: Any, connection: Connection, /) -> None: ...
    def extra(self, transport: Any, connection: Connection, /) -> dict[str, Any]: ...


class Connection:
    """What the program knows of one connection."""

    def __init__(self) -> None:
        self.log = Log()
        self.made: dict[str, Any] | None = None
        self.transport: Any = None
        self.protocol: Any = None
        self.reader: asyncio.StreamReader | None = None
        self.tasks: list[asyncio.Task[None]] = []
        self.written = 0
        self.lent: socket.socket | None = None
        self.peer: Peer | None = None


class Raised(Exception):
    """What the step ``raise`` ends a callback with."""


class _Callbacks(asyncio.BaseProtocol):
    def __init__(self, run: Program, connection: Connection) -> None:
        self._run = run
        self._connection = connection
        self._data_seen = self._eof_seen = False

    def _do(self, steps: tuple[Step, ...], transport: Any) -> None:
        for step in steps:
            if step.op == "raise":
                raise Raised
            if step.op == "interrupt":
                raise KeyboardInterrupt
            self._run.attempt(
                step,
                lambda step=step: self._run.on_transport(  # type: ignore[misc]
                    step, transport, self._connection
                ),
            )

    def connection_made(self, transport: Any) -> None:
        connection = self._connection
        connection.log.note("made")
        connection.made = self._run.extra(transport, connection)
        connection.transport = transport
        self._transport = transport
        self._do(self._run.scenario.made, transport)

    def _came(self) -> None:
        if not self._data_seen:
            self._data_seen = True
            self._do(self._run.scenario.data, self._transport)

    def eof_received(self) -> bool:
        self._connection.log.note("eof")
        if not self._eof_seen:
            self._eof_seen = True
            self._do(self._run.scenario.eof, self._transport)
        return self._run.scenario.keep_open

    def pause_writing(self) -> None:
        self._connection.log.note("pause_writing")

    def resume_writing(self) -> None:
        self._connection.log.note("resume_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connection.log.note("lost", describe(exc))
        self._do(self._run.scenario.lost, self._transport)


class _Protocol(_Callbacks, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self._connection.log.data("data", data)
        self._came()


class _Buffered(_Callbacks, asyncio.BufferedProtocol):
    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        self._buffer = bytearray(1000)
        # asyncio's TLS reads a second record into `buffer[offset:]` (_do_read__buffered(), 3.11 to
        # 3.13), which of a bytearray is a copy: its bytes are lost on both loops.
        return memoryview(self._buffer)

    def buffer_updated(self, nbytes: int) -> None:
        self._connection.log.data("data", bytes(self._buffer[:nbytes]))
        self._came()


class _Streams(asyncio.StreamReaderProtocol):
    """asyncio's own protocol of streams, whose calls are noted on the way."""

    def __init__(self, run: Program, connection: Connection) -> None:
        connection.reader = asyncio.StreamReader(limit=1 << 20)
        super().__init__(connection.reader)
        self._notes = _Callbacks(run, connection)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._notes.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._notes._connection.log.data("data", data)
        self._notes._came()

    def eof_received(self) -> bool | None:
        super().eof_received()
        return self._notes.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._notes.connection_lost(exc)


PROTOCOLS: dict[str, Callable[[Program, Connection], asyncio.BaseProtocol]] = {
    "protocol": _Protocol,
    "buffered": _Buffered,
    "streams": _Streams,
}
