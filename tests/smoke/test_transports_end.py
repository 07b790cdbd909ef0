# SPDX-License-Identifier: MIT
"""How asyncio's transports end: by either side, by a fault, with an interrupt; told once."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

import ioxide
from tests.support import MIB, SMALL, TIMEOUT, Whole, noise
from tests.transports import Recorder, pair, run, the_loop, until


@pytest.mark.parametrize("keep_open", [False, True])
def test_eof_received_says_whether_the_connection_stays(keep_open: bool) -> None:
    """False closes; True leaves our side open, for as long as the protocol likes."""

    async def main() -> None:
        protocol = Recorder()
        protocol.keep_open = keep_open
        async with pair(protocol) as peer:
            await peer.send(b"last")
            peer.sock.shutdown(socket.SHUT_WR)
            await until(lambda: "eof" in protocol.calls, "eof_received()")
            if keep_open:
                protocol.transport.write(b"answer")
                assert b"answer" == await peer.read(6)
                assert not protocol.transport.is_closing()
                protocol.transport.close()
            await until(lambda: "lost" in protocol.calls, "connection_lost()")
            assert b"" == await peer.read_to_end()
            assert (["made", "data", "eof", "lost"], None) == (protocol.calls, protocol.lost_by)

    run(main())


@pytest.mark.parametrize("end", ["close", "abort", "close twice", "close, then abort", "reset"])
def test_connection_lost_comes_once(end: str) -> None:
    """However a connection ends, and however often: one connection_lost(), with the right cause."""

    async def main() -> None:
        protocol = Recorder()
        async with pair(protocol) as peer:
            if end == "reset":
                peer.reset()
            else:
                for name in end.replace(" twice", ", then close").split(", then "):
                    getattr(protocol.transport, name)()
            await until(lambda: "lost" in protocol.calls, "connection_lost()")
            assert protocol.transport.is_closing()
            protocol.transport.close()
            protocol.transport.abort()
            for _ in range(5):
                await asyncio.sleep(0.001)
            assert ["made", "lost"] == protocol.calls
            cause = ConnectionResetError if end == "reset" else type(None)
            assert cause is type(protocol.lost_by)
            assert -1 == protocol.transport.get_extra_info("socket").fileno()

    run(main())


def test_close_waits_for_what_was_written() -> None:
    """connection_lost() comes when the last byte was handed to the kernel, and not before."""
    sent = noise(8 * MIB, seed=10)

    async def main() -> None:
        protocol = Recorder()
        async with pair(protocol, rcvbuf=4096) as peer:
            protocol.transport.write(sent)
            protocol.transport.close()
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert ["made", "pause"] == protocol.calls
            whole = await peer.read_to_end()
            assert Whole(sent) == Whole(whole)
            await until(lambda: "lost" in protocol.calls, "connection_lost()")
            assert (["made", "pause", "resume", "lost"], None) == (
                protocol.calls,
                protocol.lost_by,
            )

    run(main())


@pytest.mark.parametrize("callback", ["data_received", "eof_received"])
def test_a_callback_that_raises_ends_its_transport_alone(callback: str) -> None:
    """The fault goes to the exception handler and to connection_lost(); the loop serves on."""
    boom = ZeroDivisionError("of the protocol")

    class Faulty(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._fail("data_received")

        def eof_received(self) -> bool:
            self._fail("eof_received")
            return True

        def _fail(self, name: str) -> None:
            if callback == name:
                raise boom

    async def main() -> int:
        protocol, other = Faulty(), Recorder()
        async with pair(other) as bystander:
            async with pair(protocol) as peer:
                await peer.send(b"x")
                peer.sock.shutdown(socket.SHUT_WR)
                await until(lambda: "lost" in protocol.calls, "connection_lost()")
                assert boom is protocol.lost_by
            await bystander.send(b"still here")
            await until(lambda: other.data == b"still here", "the bystander's bytes")
        return the_loop().driver.counters().wakeup_faults

    message = f"Fatal error: protocol.{callback}() call failed."
    assert 0 == run(main(), faults=[message])


@pytest.mark.parametrize("error", [ZeroDivisionError("of the protocol"), OSError("of it")])
def test_a_connection_made_that_raises_leaves_the_connection(error: Exception) -> None:
    """The exception handler is told, and what comes is received, as with asyncio."""

    class Faulty(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            raise error

    async def main() -> None:
        protocol = Faulty()
        async with pair(protocol) as peer:
            await peer.send(b"x")
            await until(lambda: protocol.data == b"x", "a byte")
            protocol.transport.write(b"y")
            assert b"y" == await peer.read(1)
            peer.sock.shutdown(socket.SHUT_WR)
            await until(lambda: "lost" in protocol.calls, "connection_lost()")
            assert (["made", "data", "eof", "lost"], None) == (protocol.calls, protocol.lost_by)

    name = Faulty.connection_made.__qualname__
    run(main(), faults=[f"Exception in callback {name}()"])


def test_an_interrupt_in_connection_made_loses_nothing() -> None:
    """KeyboardInterrupt leaves run_forever(); the connection is read when the loop runs again."""

    class Interrupted(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            raise KeyboardInterrupt

    protocol = Interrupted()
    loop = ioxide.new_event_loop(SMALL)
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            opening = loop.create_task(
                loop.create_connection(lambda: protocol, *server.getsockname())
            )
            with pytest.raises(KeyboardInterrupt):
                loop.run_until_complete(opening)
            with server.accept()[0] as peer:
                peer.sendall(b"x")
                loop.run_until_complete(until(lambda: protocol.data == b"x", "a byte"))
            loop.run_until_complete(until(lambda: "lost" in protocol.calls, "connection_lost()"))
            assert (protocol.transport, protocol) == opening.result()
    finally:
        loop.close()


def test_a_large_write_in_connection_made_is_resumed() -> None:
    """It is more than the kernel takes at once, and the peer says nothing: the protocol is told."""
    data = noise(8 * MIB, seed=16)

    class Writer(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.write(data)

    async def main() -> None:
        protocol = Writer()
        async with pair(protocol, rcvbuf=4096) as peer:
            assert ["made", "pause"] == protocol.calls
            assert Whole(data) == Whole(await peer.read(len(data)))
            await until(lambda: "resume" in protocol.calls, "resume_writing()")

    run(main())


def test_a_failure_to_send_ends_a_paused_transport() -> None:
    """Nobody reads, so only the SEND meets the reset: connection_lost() tells it all the same."""

    async def main() -> None:
        protocol = Recorder()
        async with pair(protocol) as peer:
            protocol.transport.pause_reading()
            await asyncio.sleep(0.001)  # the receive is cancelled
            peer.reset()
            protocol.transport.write(b"to nobody")
            await until(lambda: "lost" in protocol.calls, "connection_lost()")
            assert isinstance(protocol.lost_by, ConnectionError)
            assert ["made", "lost"] == protocol.calls

    run(main())


def test_writes_to_a_lost_connection_are_dropped_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As asyncio: the first few are silent, then each is a warning; none raises."""

    async def main() -> None:
        protocol = Recorder()
        async with pair(protocol):
            protocol.transport.abort()
            for _ in range(4):
                protocol.transport.write(b"x")
            assert [] == caplog.messages
            for _ in range(3):
                protocol.transport.write(b"x")
            assert ["socket.send() raised exception."] * 3 == caplog.messages

    run(main())


def test_an_interrupt_in_a_callback_loses_nothing() -> None:
    """KeyboardInterrupt leaves run_forever(), as in asyncio; the rest comes when it runs again."""
    sent = noise(600_000, seed=13)

    class Interrupted(Recorder):
        def data_received(self, data: bytes) -> None:
            first = not self.data
            super().data_received(data)
            if first:
                raise KeyboardInterrupt

    protocol = Interrupted()
    loop = ioxide.new_event_loop(SMALL)
    try:
        server = loop.run_until_complete(loop.create_server(lambda: protocol, "127.0.0.1", 0))
        with socket.create_connection(server.sockets[0].getsockname(), TIMEOUT) as client:
            sender = threading.Thread(target=client.sendall, args=(sent,))
            sender.start()
            with pytest.raises(KeyboardInterrupt):
                loop.run_until_complete(asyncio.sleep(TIMEOUT))
            loop.run_until_complete(
                until(lambda: len(protocol.data) == len(sent), "the rest of the bytes")
            )
            sender.join(TIMEOUT)
            assert Whole(sent) == Whole(protocol.data)
        loop.run_until_complete(until(lambda: "lost" in protocol.calls, "connection_lost()"))
        server.close()
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def test_a_protocol_may_be_set_after_the_end() -> None:
    """As with asyncio, whose sendfile() puts the protocol back when the peer has gone meanwhile."""

    async def main() -> None:
        protocol, another = Recorder(), Recorder()
        async with pair(protocol) as peer:
            transport = protocol.transport
            transport.abort()
            await until(lambda: "lost" in protocol.calls, "connection_lost()")
            transport.set_protocol(another)
            assert transport.get_protocol() is another
            peer.sock.close()

    run(main())
