# SPDX-License-Identifier: MIT
"""Runs a scenario of connections on whichever loop it is given, and says what was seen.

A step is done, then the loop runs until nothing happens any more, so that what differs between two
loops is what they do and not when. `patience` stretches every such wait.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.differential.observer import (
    Reports,
    Strangers,
    describe,
    descriptors,
    given_back,
    left,
    take_all_descriptors,
    tcp_sockets,
    waiting,
)
from tests.differential.peer import Peer, Peers, listening, pattern
from tests.differential.protocols import PROTOCOLS, Connection, Tls
from tests.differential.scenario import LOOP_STEPS, Scenario, Step

NewLoop = Callable[[], asyncio.AbstractEventLoop]
HOST = "127.0.0.1"
BOUND = 15.0
_QUIET_ROUNDS = 4
_RESET = struct.pack("ii", 1, 0)


class Run:
    """One run of a scenario on one loop."""

    def __init__(self, scenario: Scenario, tls: Tls | None, patience: float) -> None:
        self.scenario = scenario
        self.tls = tls
        self.patience = patience
        self.peers = Peers()
        self.reports = Reports()
        self.strangers = Strangers()
        self.connections: list[Connection] = []
        self.accepted = 0
        self.raised: list[list[Any]] = []
        self.refused: list[str] = []
        self.server: Any = None
        self.listener: socket.socket | None = None
        self.listener_after: str | None = None
        self.address: tuple[str, int] = (HOST, 0)
        self.addresses: set[tuple[str, int]] = set()
        self.tcp = 0
        self.interrupts = 0
        self._position = "start"

    # What can go wrong is part of what is seen

    def attempt(self, step: Step, action: Callable[[], object]) -> None:
        """Do it; note what it raised."""
        try:
            action()
        except Exception as error:
            self.raised.append([self._position, step.op, describe(error)])

    def extra(self, transport: Any, connection: Connection) -> dict[str, Any]:
        """``get_extra_info()``, in terms that are the same in every run."""
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        sock = transport.get_extra_info("socket")
        return {
            "peername": "the peer's" if peer in self.addresses else peer and "another",
            "sockname": own if own is None else "given",
            "fileno": None if sock is None else (sock.fileno() >= 0),
            "lent number": connection.lent is not None
            and sock.fileno() == connection.lent.fileno(),
            "reading": transport.is_reading(),
            "closing": transport.is_closing(),
        }

    # How connections begin

    def _protocol(self, connection: Connection) -> asyncio.BaseProtocol:
        protocol = PROTOCOLS[self.scenario.api](self, connection)
        connection.protocol = protocol
        return protocol

    def _accept(self) -> asyncio.BaseProtocol:
        # The n-th connection that the loop accepts is the n-th that was opened.
        while len(self.connections) <= self.accepted:
            self.connections.append(Connection())
        self.accepted += 1
        return self._protocol(self.connections[self.accepted - 1])

    async def listen(self) -> None:
        """The loop's listener, or the peers' own."""
        loop = asyncio.get_running_loop()
        if self.scenario.way.startswith("accept") and self.scenario.way != "accepted":
            context = self.tls.server if self.tls is not None else None
            if self.scenario.way == "accept-sock":
                self.listener = listening(HOST)
                self.server = await loop.create_server(
                    self._accept, sock=self.listener, ssl=context
                )
                self.address = self.listener.getsockname()
                await self.settle()
                flag = os.get_blocking(self.listener.fileno())
                self.listener_after = "blocking" if flag else "non-blocking"
            else:
                self.server = await loop.create_server(self._accept, HOST, 0, ssl=context)
                self.address = self.server.sockets[0].getsockname()
            return
        self.backend_socket = listening(HOST)
        self.address = self.backend_socket.getsockname()
        self.addresses.add(self.address)

    async def open(self) -> None:
        """One more connection, by the scenario's way."""
        if self.server is not None:
            self._client()
            await self.settle()
            return
        connection = Connection()
        self.connections.append(connection)
        loop = asyncio.get_running_loop()
        sock: socket.socket | None = None
        if self.scenario.way != "connect":
            sock = connection.lent = socket.create_connection(self.address)
        client = None if self.tls is None else self.tls.client
        options: dict[str, Any] = {"ssl": client}
        if client is not None:
            options["server_hostname"] = "localhost"
        if self.scenario.way == "accepted":
            assert sock is not None
            options = {"ssl": None if self.tls is None else self.tls.server}
            coroutine = loop.connect_accepted_socket(
                lambda: self._protocol(connection), sock, **options
            )
        elif sock is not None:
            coroutine = loop.create_connection(
                lambda: self._protocol(connection), sock=sock, **options
            )
        else:
            coroutine = loop.create_connection(
                lambda: self._protocol(connection), *self.address, **options
            )
        task = asyncio.ensure_future(coroutine)
        if sock is None:
            self.backend_socket.setblocking(False)
            other = None
            while other is None:
                try:
                    other = self.backend_socket.accept()[0]
                except BlockingIOError:
                    await asyncio.sleep(0.0005)
        else:
            other = self.backend_socket.accept()[0]
        context = None
        serves = self.scenario.way != "accepted"
        if self.tls is not None:
            context = self.tls.server if serves else self.tls.client
        connection.peer = self.peers.add(other, context, server=serves)
        try:
            await task
        except Exception as error:
            self.raised.append(["start", "open", describe(error)])
        await self.settle()

    def _bound(self) -> socket.socket:
        """A socket whose address is known before its connection can be accepted."""
        sock = socket.socket()
        sock.bind((HOST, 0))
        self.addresses.add(sock.getsockname())
        return sock

    def _client(self, *, reset: bool = False) -> None:
        """A client of the loop's listener; a refusal is noted."""
        sock = self._bound()
        try:
            sock.settimeout(2)
            sock.connect(self.address)
        except OSError as error:
            self.refused.append(describe(error) or "")
            sock.close()
            return
        self._adopt_client(sock, reset=reset)

    def _adopt_client(self, sock: socket.socket, *, reset: bool = False) -> None:
        context = None if self.tls is None else self.tls.client
        peer = self.peers.add(sock, context, server=False)
        index = sum(c.peer is not None for c in self.connections)
        if index == len(self.connections):
            self.connections.append(Connection())
        self.connections[index].peer = peer
        if reset:
            self.peers.call(peer.reset)

    # What the program does

    def on_transport(self, step: Step, transport: Any, connection: Connection) -> None:
        """A method of the transport, from a callback of its protocol or from outside."""
        match step.op:
            case "write" | "writelines" | "writelines-wrong":
                data = pattern(connection.written, step.n)
                if step.op == "writelines-wrong":
                    transport.writelines([data, "text"])
                    return
                connection.written += step.n
                half = step.n // 2
                if step.op == "write":
                    transport.write(data)
                else:
                    transport.writelines([data[:half], bytearray(data[half:])])
            case "write-wrong":
                transport.write("text")
            case "pause":
                transport.pause_reading()
            case "resume":
                transport.resume_reading()
            case "eof":
                transport.write_eof()
            case "close":
                transport.close()
            case "abort":
                transport.abort()
            case "close-lent":
                if connection.lent is not None:
                    connection.lent.close()
            case "number":
                self.strangers.open()
            case "linger":
                transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, _RESET
                )

    def _thread_write(self, step: Step, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        data = pattern(connection.written, step.n)
        connection.written += step.n
        transport = connection.transport
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(transport.write, data))
        thread.start()
        thread.join()

    async def _stream(self, connection: Connection, step: Step) -> None:
        reader, log = connection.reader, connection.log
        assert reader is not None
        try:
            if step.op == "read":
                log.data("read", await reader.read(step.n))
            else:
                writer = asyncio.StreamWriter(
                    connection.transport, connection.protocol, reader, asyncio.get_running_loop()
                )
                await writer.drain()
                log.note("drained")
        except asyncio.CancelledError:
            log.note(f"{step.op} cancelled")
        except Exception as error:
            log.note(f"{step.op} raised", describe(error))

    async def _short(self, count: int) -> None:
        """Let `count` clients connect while no descriptor is left, then wait for the second try."""
        clients = [self._bound() for _ in range(count)]
        used = take_all_descriptors()
        try:
            for sock in clients:
                sock.connect(self.address)
            await asyncio.sleep(0.1 * self.patience)
        finally:
            for number in used:
                os.close(number)
        for sock in clients:
            self._adopt_client(sock)
        await asyncio.sleep(1.2)  # asyncio tries again after a second

    async def step(self, step: Step) -> None:
        """One step from outside."""
        if step.op in ("unlisten", "close-listener"):
            target = self.server if step.op == "unlisten" else self.listener
            if target is not None:
                self.attempt(step, target.close)
        elif step.op == "short":
            if self.server is not None:
                await self._short(step.n)
        elif step.op == "another":
            await self.open()
        elif step.op == "another-reset":
            if self.server is not None:
                self._client(reset=True)
        elif step.on < len(self.connections):
            connection = self.connections[step.on]
            if step.op in LOOP_STEPS:
                self._program(step, connection)
            elif connection.peer is not None:
                self._peer(step, connection.peer)

    def _program(self, step: Step, connection: Connection) -> None:
        if step.op in ("read", "drain"):
            if connection.reader is not None and connection.transport is not None:
                connection.tasks.append(asyncio.ensure_future(self._stream(connection, step)))
        elif step.op == "cancel":
            for task in connection.tasks[-1:]:
                task.cancel()
        elif connection.transport is None:
            return
        elif step.op == "drop":
            connection.transport = connection.protocol = connection.reader = None
            gc.collect()
        elif step.op == "waiting":
            sock = connection.transport.get_extra_info("socket")
            self.attempt(step, lambda: connection.log.note("waiting", waiting(sock.fileno())))
        elif step.op == "thread-write":
            self.attempt(step, lambda: self._thread_write(step, connection))
        else:
            self.attempt(step, lambda: self.on_transport(step, connection.transport, connection))

    def _peer(self, step: Step, peer: Peer) -> None:
        if peer.sock.fileno() < 0:
            return
        jobs: dict[str, Callable[[], object]] = {
            "send": lambda: peer.send(step.n),
            "trickle": lambda: peer.trickle(step.n),
            "shut": peer.shut,
            "end": peer.close,
            "reset": peer.reset,
            "stall": lambda: peer.reads(False),
            "unstall": lambda: peer.reads(True),
        }
        self.peers.call(jobs[step.op])

    # Time

    def _activity(self) -> tuple[int, ...]:
        return (
            self.peers.activity,
            len(self.reports.handler),
            *(each.log.count for each in self.connections),
        )

    async def settle(self) -> None:
        """Let the loop run until nothing happens any more."""
        calm, before = 0, self._activity()
        deadline = time.monotonic() + 2 * self.patience
        while calm < _QUIET_ROUNDS and time.monotonic() < deadline:
            await asyncio.sleep(0.0008 * self.patience)
            now = self._activity()
            calm, before = (calm + 1 if now == before else 0), now

    async def main(self) -> None:
        """The program's main coroutine."""
        asyncio.get_running_loop().set_exception_handler(self.reports.handle)
        await self.listen()
        for _ in range(self.scenario.connections):
            await self.open()
        for number, step in enumerate(self.scenario.steps):
            self._position = str(number)
            await self.step(step)
            if not step.at_once:
                await self.settle()
        self._position = "end"
        await self.settle()
        self.tcp = tcp_sockets()
        if self.scenario.close:
            for connection in self.connections:
                if connection.transport is not None:
                    self.attempt(Step("close"), connection.transport.close)
            if self.server is not None:
                self.attempt(Step("unlisten"), self.server.close)
            await self.settle()
        for connection in self.connections:
            connection.tasks.clear()

    def run(self, loop: asyncio.AbstractEventLoop) -> None:
        """The program, which goes on where an interrupt has left the loop."""
        program = loop.create_task(asyncio.wait_for(self.main(), BOUND * self.patience))
        while True:
            try:
                return loop.run_until_complete(program)
            except KeyboardInterrupt:
                self.interrupts += 1

    # What was seen

    def _wait_for_peers(self) -> None:
        """The loop is closed: whatever still reaches the peers reaches them now."""
        calm, before = 0, -1
        deadline = time.monotonic() + 2 * self.patience
        while calm < _QUIET_ROUNDS and time.monotonic() < deadline:
            time.sleep(0.001 * self.patience)
            now = self.peers.activity
            calm, before = (calm + 1 if now == before else 0), now

    def seen(self) -> dict[str, Any]:
        """Everything that is compared, but for the descriptors left."""
        return {
            "connections": [
                {
                    "made": each.made,
                    "callbacks": each.log.entries,
                    "peer": None if each.peer is None else each.peer.seen(),
                    "lent": None if each.lent is None else given_back(each.lent),
                }
                for each in self.connections
            ],
            "raised": self.raised,
            "refused": self.refused,
            "handler": self.reports.handler,
            "warnings": self.reports.warnings,
            "unraisable": self.reports.unraisable,
            "listener": self.listener_after,
            "strangers": self.strangers.seen(),
            "tcp sockets": self.tcp,
            "interrupts": self.interrupts,
        }

    def close(self) -> None:
        """Give back what the scenario itself had opened."""
        self.peers.close()
        self.strangers.close()
        for connection in self.connections:
            if connection.lent is not None:
                connection.lent.close()
        if self.listener is not None:
            self.listener.close()
        if self.server is None and hasattr(self, "backend_socket"):
            self.backend_socket.close()


def run(scenario: Scenario, new_loop: NewLoop, tls: Tls | None, patience: float) -> dict[str, Any]:
    """What is seen of `scenario` on a loop that `new_loop` makes."""
    gc.collect()
    before = descriptors()
    this = Run(scenario, tls if scenario.tls else None, patience)
    end = None
    with this.reports.collected():
        runner = asyncio.Runner(loop_factory=new_loop)
        try:
            with runner:
                this.run(runner.get_loop())
        except Exception as error:
            end = describe(error)
        # The last references go when the loop is closed, as at the end of a program.
        for connection in this.connections:
            connection.transport = connection.protocol = connection.reader = None
        this.server = None if this.server is None else True
        del runner
        gc.collect()
        this._wait_for_peers()
        for connection in this.connections:
            if connection.peer is not None and connection.peer.sock.fileno() >= 0:
                this.peers.call(lambda peer=connection.peer: peer.reads(True))  # type: ignore[misc]
        this._wait_for_peers()
    result = this.seen()
    this.close()
    del this
    gc.collect()
    return {**result, "end": end, "left": left(before)}
