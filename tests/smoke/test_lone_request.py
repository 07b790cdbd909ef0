# SPDX-License-Identifier: MIT
"""What a request costs where it is alone in its tick: counts, and what must not wait for it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any

import pytest

import ioxide
from tests.support import TIMEOUT, noise, read_exactly

REQUESTS = 100


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = transport.write  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._write(data)


def _ask(client: socket.socket, answer: bytes = b"ping") -> None:
    for _ in range(REQUESTS):
        client.sendall(b"ping")
        assert answer == read_exactly(client, len(answer))


# A send of 40,000 bytes has a completion, one of four bytes has none.
@pytest.mark.parametrize("size", [4, 40_000])
def test_a_lone_request_takes_one_turn_of_the_loop(size: int) -> None:
    """The completion of the answer takes none: nobody waits for it."""
    answer = noise(size, seed=size)

    class Answer(_Echo):
        def data_received(self, data: bytes) -> None:  # noqa: ARG002 - asyncio names it
            self._write(answer)

    async def main() -> tuple[int, int]:
        loop: Any = asyncio.get_running_loop()
        server = await loop.create_server(Answer, "127.0.0.1", 0)
        turns = 0
        original = loop._process_events

        def counted(events: object) -> None:
            nonlocal turns
            turns += 1
            original(events)

        address = server.sockets[0].getsockname()
        with socket.create_connection(address, TIMEOUT) as client:
            await asyncio.to_thread(_ask, client, answer)  # connected, and warm
            before = loop.driver.counters().sends
            loop._process_events = counted
            await asyncio.to_thread(_ask, client, answer)
            del loop._process_events
            sends = loop.driver.counters().sends - before
        server.close()
        return turns, sends

    turns, sends = ioxide.run(main())
    assert REQUESTS == sends
    assert REQUESTS <= turns <= REQUESTS + 20  # two a request, if the completions of sends took one


def test_a_send_that_completes_late_holds_up_no_timer() -> None:
    """The wait goes on behind it with what is left of its time, not with all of it."""
    payload = noise(16_000, seed=5)  # no larger than a slab: a larger one is looked at in between

    class Sender(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the least there is
            transport.write(payload)  # type: ignore[attr-defined]

    ended = threading.Event()

    def read_late(address: tuple[str, int], got: list[bytes]) -> None:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            client.settimeout(TIMEOUT)
            client.connect(address)
            time.sleep(1.5)
            got.append(read_exactly(client, len(payload)))
            ended.wait(TIMEOUT)  # the end of the stream would be told at once

    async def main() -> float:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Sender, "127.0.0.1", 0)
        got: list[bytes] = []
        thread = threading.Thread(target=read_late, args=(server.sockets[0].getsockname(), got))
        thread.start()
        await asyncio.sleep(0.5)  # it is connected, and the send has begun
        began = loop.time()
        await asyncio.sleep(2)
        late = loop.time() - began - 2
        ended.set()
        await asyncio.to_thread(thread.join, TIMEOUT)
        assert [payload] == got
        server.close()
        return late

    assert ioxide.run(main()) < 0.8  # a second, if the wait began anew with that completion


def test_a_flush_hears_of_the_send_at_once() -> None:
    """A batch of nothing but sends resumes who waits for one of them."""
    flushed: list[int] = []

    async def handler(conn: ioxide.Connection) -> None:
        while data := await conn.recv():
            conn.write(data)
            await conn.flush()
            flushed.append(len(data))

    config = ioxide.ServerConfig(port=0, ring_entries=64, recv_slots=64)
    with ioxide.Server(handler, config) as server:
        with socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as client:
            _ask(client)
        server.stop()
    assert [4] * REQUESTS == flushed
