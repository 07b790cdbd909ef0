# SPDX-License-Identifier: MIT
"""A callback that ends with KeyboardInterrupt or SystemExit, and the loop that is run again.

As with asyncio both leave run_forever(), and the connection goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import ioxide
from tests.support import SMALL, TIMEOUT, Whole, noise, read_exactly, read_to_end
from tests.transports import Recorder, until

INTERRUPTS = (KeyboardInterrupt, SystemExit)


class Interrupted(Recorder):
    """Ends the callback `where` with `error`, the first time."""

    def __init__(self, where: str, error: type[BaseException] = KeyboardInterrupt) -> None:
        super().__init__()
        self.error = error
        self.where = where

    def _came_to(self, name: str) -> None:
        if name == self.where:
            self.where = ""
            raise self.error

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._came_to("made")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._came_to("data")

    def eof_received(self) -> bool:
        super().eof_received()
        self._came_to("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        super().pause_writing()
        self._came_to("pause")

    def resume_writing(self) -> None:
        super().resume_writing()
        self._came_to("resume")


class Program:
    """A loop with one listener, and a client of it."""

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.loop = ioxide.new_event_loop(SMALL)
        self.server = self.loop.run_until_complete(
            self.loop.create_server(lambda: protocol, "127.0.0.1", 0)
        )
        self.client = socket.socket()
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.client.settimeout(TIMEOUT)
        self.client.connect(self.server.sockets[0].getsockname())

    def until_call(self, name: str) -> None:
        self.loop.run_until_complete(until(lambda: name in self.protocol.calls, name))

    def interrupted(self, error: type[BaseException] = KeyboardInterrupt) -> None:
        """Run until the interrupt comes."""
        asleep = self.loop.create_task(asyncio.sleep(TIMEOUT))
        with pytest.raises(error):
            self.loop.run_until_complete(asleep)
        asleep.cancel()

    def close(self) -> None:
        self.client.close()
        self.server.close()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()


@contextmanager
def program(protocol: Any) -> Iterator[Program]:
    this = Program(protocol)
    try:
        yield this
    finally:
        this.close()


@pytest.mark.parametrize("error", INTERRUPTS)
def test_connection_made_of_an_accepted_connection(error: type[BaseException]) -> None:
    """The connection is read and written when the loop runs again; it is not reset."""
    protocol = Interrupted("made", error)
    with program(protocol) as this:
        this.interrupted(error)
        this.loop.run_until_complete(asyncio.sleep(0.01))
        assert ["made"] == protocol.calls
        this.client.sendall(b"question")
        this.loop.run_until_complete(until(lambda: protocol.data == b"question", "the bytes"))
        protocol.transport.write(b"answer")
        this.client.shutdown(socket.SHUT_WR)
        this.until_call("lost")
        assert b"answer" == read_to_end(this.client)
        assert (["made", "data", "eof", "lost"], None) == (protocol.calls, protocol.lost_by)


def test_a_factory_that_is_interrupted_leaves_no_connection() -> None:
    """There is no protocol that could ever close it."""
    made: list[Recorder] = []

    def factory() -> Recorder:
        if not made:
            made.append(Recorder())
            raise KeyboardInterrupt
        return made[0]

    loop = ioxide.new_event_loop(SMALL)
    try:
        server = loop.run_until_complete(loop.create_server(factory, "127.0.0.1", 0))
        address = server.sockets[0].getsockname()
        with socket.create_connection(address, TIMEOUT) as client:
            with pytest.raises(KeyboardInterrupt):
                loop.run_until_complete(asyncio.sleep(TIMEOUT))
            loop.run_until_complete(asyncio.sleep(0.01))
            assert b"" == client.recv(1)
        server.close()
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


@pytest.mark.parametrize("error", INTERRUPTS)
def test_eof_received_is_asked_again(error: type[BaseException]) -> None:
    """What it had not answered decides about the end: the connection is not left half open."""
    protocol = Interrupted("eof", error)
    with program(protocol) as this:
        this.client.shutdown(socket.SHUT_WR)
        this.interrupted(error)
        this.until_call("lost")
        assert b"" == read_to_end(this.client)
        assert (["made", "eof", "eof", "lost"], None) == (protocol.calls, protocol.lost_by)


def test_pause_writing_is_followed_by_resume_writing() -> None:
    """The protocol counts as paused, so it hears when it may write again."""
    data = noise(1 << 20, seed=31)
    protocol = Interrupted("pause")
    with program(protocol) as this:
        this.until_call("made")
        this.loop.call_soon(protocol.transport.write, data)
        this.interrupted()
        reading = this.loop.run_in_executor(None, read_exactly, this.client, len(data))
        assert Whole(data) == Whole(this.loop.run_until_complete(reading))
        this.until_call("resume")


def test_resume_writing_holds_back_no_end() -> None:
    """close() was called while bytes waited: the connection ends although the call is cut short."""
    data = noise(1 << 20, seed=32)
    protocol = Interrupted("resume")
    with program(protocol) as this:
        this.until_call("made")
        protocol.transport.set_write_buffer_limits(high=1000, low=0)
        protocol.transport.write(data)
        protocol.transport.close()
        reading = this.loop.run_in_executor(None, read_exactly, this.client, len(data))
        this.interrupted()
        assert Whole(data) == Whole(this.loop.run_until_complete(reading))
        this.until_call("lost")
        assert b"" == read_to_end(this.client)
        assert (["made", "pause", "resume", "lost"], None) == (protocol.calls, protocol.lost_by)


def test_get_buffer_is_asked_again() -> None:
    """The bytes that it was asked for wait, and come although nothing more does."""

    class Buffered(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.asked = 0
            self.came = 0
            self.buffer = bytearray(100)

        def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002
            self.asked += 1
            if self.asked == 1:
                raise KeyboardInterrupt
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.came += nbytes

    protocol = Buffered()
    with program(protocol) as this:
        this.client.sendall(b"seven b")
        this.interrupted()
        this.loop.run_until_complete(until(lambda: protocol.came, "bytes"))
        assert (7, b"seven b") == (protocol.came, bytes(protocol.buffer[:7]))
        this.client.close()
        this.loop.run_until_complete(asyncio.sleep(0.01))


def test_what_came_beside_the_bytes_is_told() -> None:
    """A batch brings bytes and the end of a write; data_received() is cut short before that."""
    data = noise(30_000, seed=33)
    protocol = Interrupted("data")
    filled = 0
    with program(protocol) as this:
        this.until_call("made")
        transport = protocol.transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 60_000)
        transport.set_write_buffer_limits(high=1000, low=0)

        def write() -> None:
            nonlocal filled
            # Behind the transport's back: how much a socket takes of one send differs by kernel.
            with (
                socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as sock,
                contextlib.suppress(BlockingIOError),
            ):
                while True:
                    filled += sock.send(bytes(4000), socket.MSG_DONTWAIT)
            transport.write(data)
            this.loop.call_later(0.02, stand_still)

        def stand_still() -> None:
            # Nothing is taken in meanwhile, so that both come with one enter.
            got = 0
            this.client.settimeout(0.2)
            try:
                while True:
                    got += len(this.client.recv(1 << 16))
            except TimeoutError:
                pass
            this.client.settimeout(TIMEOUT)
            assert filled <= got < filled + len(data)  # the control: the rest is sent in that enter
            this.client.sendall(b"x")
            time.sleep(0.01)

        this.loop.call_soon(write)
        this.interrupted()
        assert ["made", "pause", "data"] == protocol.calls  # the control: it came first
        this.until_call("resume")
