# SPDX-License-Identifier: MIT
"""A loop in debug mode names the callbacks that take long, also those that are in no handle."""

from __future__ import annotations

import asyncio
import re
import socket
import time

import pytest

from tests.support import MIB
from tests.transports import Recorder, pair, run, the_loop, until

SLOW = 0.05


class _Slow(Recorder):
    """Takes its time in one callback."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def _dawdle(self, name: str) -> None:
        if name == self.name:
            time.sleep(2 * SLOW)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._dawdle("connection_made")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._dawdle("data_received")

    def eof_received(self) -> bool:
        self._dawdle("eof_received")
        return super().eof_received()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._dawdle("resume_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._dawdle("connection_lost")


class _Buffered(_Slow, asyncio.BufferedProtocol):
    def get_buffer(self, _sizehint: int) -> bytearray:
        self._dawdle("get_buffer")
        self.buffer = bytearray(100)
        return self.buffer

    def buffer_updated(self, count: int) -> None:
        self.data += self.buffer[:count]
        self._dawdle("buffer_updated")


async def _live(protocol: _Slow) -> None:
    """Everything that happens to a connection happens to this one."""
    async with pair(protocol, rcvbuf=4096) as peer:
        await peer.send(b"x")
        await until(lambda: protocol.data, "a byte")
        protocol.transport.write(bytes(4 * MIB))
        assert 4 * MIB == len(await peer.read(4 * MIB))
        await until(lambda: "resume" in protocol.calls, "resume_writing()")
        peer.sock.shutdown(socket.SHUT_WR)
        await until(lambda: "lost" in protocol.calls, "connection_lost()")


def _told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [text for text in caplog.messages if re.match(r"Executing .* took \d+\.\d{3} sec", text)]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (_Slow, "connection_made"),
        (_Slow, "data_received"),
        (_Slow, "eof_received"),
        (_Slow, "resume_writing"),
        (_Slow, "connection_lost"),
        (_Buffered, "get_buffer"),
        (_Buffered, "buffer_updated"),
    ],
)
def test_a_slow_callback_is_named(
    caplog: pytest.LogCaptureFixture, kind: type[_Slow], name: str
) -> None:
    """With its duration, in asyncio's words and on its logger."""

    async def main() -> None:
        the_loop().set_debug(True)
        the_loop().slow_callback_duration = SLOW
        await _live(kind(name))

    run(main())
    told = [text for text in _told(caplog) if name in text]
    assert told, caplog.messages
    assert "asyncio" == caplog.records[-1].name
    seconds = [float(text.split(" took ")[1].split()[0]) for text in told]
    assert all(2 * SLOW <= value for value in seconds), told


def test_debug_mode_may_come_and_go(caplog: pytest.LogCaptureFixture) -> None:
    """A connection that is open is timed from set_debug(True) on, until set_debug(False)."""
    told: list[int] = []

    async def main() -> None:
        protocol = _Slow("data_received")
        the_loop().slow_callback_duration = SLOW
        async with pair(protocol) as peer:
            for debug in (False, True, False):
                the_loop().set_debug(debug)
                protocol.data.clear()
                await peer.send(b"x")
                await until(lambda: protocol.data, "a byte")
                told.append(sum("_Slow.data_received() of <Tr" in text for text in _told(caplog)))

    run(main())
    assert [0, 1, 1] == told
