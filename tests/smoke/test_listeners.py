# SPDX-License-Identifier: MIT
"""Listening sockets: shared by processes, closed by their owner, without a descriptor left."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import ioxide
from tests import faces
from tests.faces import Face, Stream
from tests.support import TIMEOUT, on_reactor, open_fds, serve
from tests.support import until as wait_until
from tests.transports import Recorder, run, the_loop, until

ROOT = Path(__file__).parents[2]

ACCEPT = 1 << 56  # submit.h: the kind of a completion, in its user_data
F_MORE = 1 << 1  # <linux/io_uring.h>


def shared_workers(scene: str) -> dict[str, Any]:
    """What tests/smoke/shared_workers.py prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.smoke.shared_workers", scene],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=4 * TIMEOUT,  # what is waited for fails first
    )
    assert not done.stderr, done.stderr.splitlines()[-1]
    assert 0 == done.returncode
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_workers_that_share_a_listener_all_get_connections() -> None:
    """Of 300 clients no worker of three takes fewer than 30; none wakes a worker more than once."""
    found = shared_workers("spread")
    assert (300, 300) == (sum(found["one by one"]), sum(found["at once"]))
    assert min(found["at once"]) >= 30, f"of 300 clients: {found['at once']}"
    counters = found["counters"]
    assert 600 == sum(each["accepts"] for each in counters)
    assert 600 == sum(each["accept_wakes"] - each["accept_misses"] for each in counters)
    # What wakes a worker is its epoll instance; once more at the end, by the signal.
    assert sum(each["poll_rearms"] for each in counters) <= 3 * 600 + 3


def test_busy_workers_hold_no_connection_back() -> None:
    """While two of three workers block, the third takes what comes, and nobody more than one."""
    found = shared_workers("busy")
    assert ["0", "0", "1", "1", "2"] == found["answers"]


@pytest.fixture(params=["made", "given"])
def own(request: pytest.FixtureRequest) -> bool:
    """Whether the listener is made by the loop, so that the ring accepts, or given to it."""
    return bool(request.param == "made")


@asynccontextmanager
async def listening(protocol: type[Recorder], own: bool) -> AsyncIterator[asyncio.Server]:
    """A server of `protocol` on a listener that accepts already."""
    loop = the_loop()
    if own:
        server = await loop.create_server(protocol, "127.0.0.1", 0)
    else:
        given = socket.create_server(("127.0.0.1", 0))
        server = await loop.create_server(protocol, sock=given)
    await asyncio.sleep(0.01)  # a tick, in which the ring's accept is submitted
    try:
        yield server
    finally:
        server.close()


class _Listed(Recorder):
    """A protocol that is found in `made`."""

    made: list[_Listed]
    names: list[Any]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.made.append(self)
        self.names.append(transport.get_extra_info("peername"))


def listed() -> type[_Listed]:
    """A class of its own, whose lists are empty."""
    return type("Listed", (_Listed,), {"made": [], "names": []})


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_a_listener_stays_as_it_is(own: bool) -> None:
    """It keeps O_NONBLOCK, which processes that share it rely on; a given one its other options."""

    async def main() -> None:
        async with listening(listed(), own) as server:
            sock = server.sockets[0]
            assert not os.get_blocking(sock.fileno()), "who shares the listener would block"
            if not own:
                assert not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    run(main())


def test_connections_have_no_delay(own: bool) -> None:
    """TCP_NODELAY, as asyncio sets it, and close-on-exec, whoever made the listener."""

    async def main() -> None:
        protocol = listed()
        async with listening(protocol, own) as server:
            with socket.create_connection(server.sockets[0].getsockname(), TIMEOUT):
                await until(lambda: protocol.made, "the connection")
                transport = protocol.made[0].transport
                sock = transport.get_extra_info("socket")
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert not os.get_inheritable(sock.fileno())
                transport.abort()
                await until(lambda: protocol.made[0].calls[-1] == "lost", "its end")

    run(main())


@pytest.mark.parametrize("how", ["made", "given", "mapped"])
def test_peername_of_a_client_that_has_reset(how: str) -> None:
    """It is the address that accept(2) saw, though getpeername(2) says ENOTCONN by now."""

    async def main() -> None:
        loop = the_loop()
        protocol = listed()
        if how == "made":
            server = await loop.create_server(protocol, "127.0.0.1", 0)
        else:
            given = socket.socket(socket.AF_INET6 if how == "mapped" else socket.AF_INET)
            if how == "mapped":
                given.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            given.bind(("", 0))
            given.listen()
            server = await loop.create_server(protocol, sock=given)
        await asyncio.sleep(0.01)
        port = server.sockets[0].getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        host, port = client.getsockname()
        reset(client)  # while the loop is here, so it is accepted afterwards
        await until(lambda: protocol.made, "the connection")
        expected = (f"::ffff:{host}", port, 0, 0) if how == "mapped" else (host, port)
        assert [expected] == protocol.names, "the address that accept(2) saw"
        await until(lambda: protocol.made[0].calls[-1] == "lost", "its end")
        server.close()

    run(main())


def test_peername_for_a_handler_whose_client_has_reset() -> None:
    """The same for a handler; None when its connection has ended."""
    names: list[object] = []
    conns: list[ioxide.Connection] = []

    async def handler(conn: ioxide.Connection) -> None:
        conns.append(conn)
        names.append(conn.peername)

    expected: list[object] = []

    def connect_and_reset() -> None:
        client = socket.create_connection(("127.0.0.1", server.port), TIMEOUT)
        expected.append(client.getsockname())
        reset(client)

    with serve(handler) as server:
        on_reactor(server.reactors[0], connect_and_reset)
        wait_until(lambda: len(names) == 1, "the handler")
        wait_until(lambda: server.stats().connections_now == 0, "its end")
        assert expected == names, "the address that accept(2) saw"
        assert conns[0].peername is None


def test_a_listener_that_its_owner_closed_ends_at_once() -> None:
    """Nobody gets in after close() of the socket, and its port is free; as with asyncio."""

    async def main() -> None:
        protocol = listed()
        given = socket.create_server(("127.0.0.1", 0))
        address = given.getsockname()
        server = await the_loop().create_server(protocol, sock=given)
        await asyncio.sleep(0.01)
        given.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, TIMEOUT)
        with socket.create_server(address), pytest.raises(ValueError, match="-1"):
            server.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, TIMEOUT)
        assert [] == protocol.made

    run(main())


@pytest.mark.parametrize("order", ["before", "after"])
def test_the_number_of_a_closed_listener_is_its_next_owners(order: str) -> None:
    """A stranger's listener with that number is left alone; given to the loop, it accepts."""

    async def main() -> None:
        loop = the_loop()
        first, second = listed(), listed()
        given = socket.create_server(("127.0.0.1", 0))
        number = given.fileno()
        server = await loop.create_server(first, sock=given)
        given.close()
        with socket.create_server(("127.0.0.1", 0)) as stranger:
            assert number == stranger.fileno()
            address = stranger.getsockname()
            with socket.create_connection(address, TIMEOUT):
                await asyncio.sleep(0.05)
                stranger.accept()[0].close()  # it waits there still
            if order == "before":
                with contextlib.suppress(ValueError):
                    server.close()
            again = await loop.create_server(second, sock=stranger)
            if order == "after":
                with contextlib.suppress(ValueError):
                    server.close()
            with socket.create_connection(address, TIMEOUT):
                await until(lambda: second.made, "a connection of the second listener")
                second.made[0].transport.abort()
                await until(lambda: second.made[0].calls[-1] == "lost", "its end")
            again.close()
        assert [] == first.made

    run(main())


def test_a_listener_that_another_process_keeps_open_is_not_used_any_more() -> None:
    """Its owner closed it here, and its number is a stranger's: both keep their connections."""

    async def main() -> None:
        loop = the_loop()
        protocol = listed()
        given = socket.create_server(("127.0.0.1", 0))
        number = given.fileno()
        server = await loop.create_server(protocol, sock=given)
        await asyncio.sleep(0.01)
        with given.dup() as elsewhere:  # as in a forked process
            given.close()
            with socket.create_server(("127.0.0.1", 0)) as stranger:
                assert number == stranger.fileno()
                for sock in (stranger, elsewhere):
                    sock.settimeout(TIMEOUT)
                with (
                    socket.create_connection(stranger.getsockname(), TIMEOUT),
                    socket.create_connection(elsewhere.getsockname(), TIMEOUT),
                ):
                    await asyncio.sleep(0.05)  # the epoll instance tells of the second
                    for sock in (stranger, elsewhere):
                        sock.accept()[0].close()
                assert [] == protocol.made
        with contextlib.suppress(ValueError):
            server.close()

    run(main())


@pytest.fixture
def few_descriptors() -> Iterator[list[socket.socket]]:
    """Clients that have their descriptor already; all other descriptors are used up by `fill()`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    clients = [socket.socket() for _ in range(3)]
    # A multishot accept samples the limit when it is armed: so it is lowered before.
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_fds() + 40, hard))
    yield clients
    for client in clients:
        client.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def fill() -> list[int]:
    """Use up every descriptor that the limit leaves."""
    used = []
    with contextlib.suppress(OSError):
        while True:
            used.append(os.dup(0))
    return used


def test_no_descriptor_left_is_told(few_descriptors: list[socket.socket], own: bool) -> None:
    """As asyncio tells it, at most once a second; who waited gets in when there is one again."""
    told: list[tuple[float, dict[str, Any]]] = []

    async def main() -> None:
        loop = the_loop()
        loop.set_exception_handler(lambda _, context: told.append((loop.time(), context)))
        protocol = listed()
        client = few_descriptors[0]
        async with listening(protocol, own) as server:
            sock = server.sockets[0]
            used = fill()
            try:
                began = loop.time()
                client.connect(sock.getsockname())
                await until(lambda: len(told) >= 2, "a second call of the exception handler")
                assert [] == protocol.made
            finally:
                for fd in used:
                    os.close(fd)
            for _, context in told:
                assert "socket.accept() out of system resource" == context["message"]
                assert "Too many open files" == context["exception"].strerror
                assert sock.fileno() == context["socket"].fileno()
                assert isinstance(context["socket"], asyncio.trsock.TransportSocket)
            took = told[-1][0] - began
            assert len(told) <= 1 + took / 0.99, "at most once a second, but for a tick"
            await until(lambda: protocol.made, "the client that waited")
            protocol.made[0].transport.abort()
            await until(lambda: protocol.made[0].calls[-1] == "lost", "its end")
            assert loop.driver.counters().accept_pauses >= 2

    run(main())


def test_the_last_descriptor_is_nothing_to_tell_of(
    few_descriptors: list[socket.socket], own: bool
) -> None:
    """A client takes the last descriptor: nobody waits, so nobody hears of it."""

    async def main() -> None:
        protocol = listed()
        async with listening(protocol, own) as server:
            used = fill()
            os.close(used.pop())
            try:
                few_descriptors[0].connect(server.sockets[0].getsockname())
                await until(lambda: protocol.made, "the client")
                await asyncio.sleep(0.3)
            finally:
                for fd in used:
                    os.close(fd)
            protocol.made[0].transport.abort()
            await until(lambda: protocol.made[0].calls[-1] == "lost", "its end")

    run(main())  # which compares what the exception handler was told


def test_an_accept_that_fails_for_nobody_is_not_told() -> None:
    """Until 6.9 an accept fails at the limit also when nobody waits; forged, for any kernel."""

    async def main() -> None:
        driver = the_loop().driver
        server = await the_loop().create_server(Recorder, "127.0.0.1", 0)
        generation = driver._core._generation
        await asyncio.sleep(0.01)
        driver._core._feed([(ACCEPT | generation << 32, -errno.EMFILE, F_MORE)])
        await asyncio.sleep(0.01)
        assert (1, 0) == (driver.counters().accept_pauses, driver.counters().stale_cqes)
        server.close()

    run(main())  # which compares what the exception handler was told


def test_a_server_without_descriptors_says_so(
    few_descriptors: list[socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    """A line that names the reactor, the port and the way out, at most once a second."""

    async def answer(stream: Stream) -> None:
        stream.write(b"x")
        await stream.flush()

    with caplog.at_level(logging.ERROR, "ioxide"), faces.serve(Face.HANDLER, answer) as server:
        used = fill()
        try:
            began = time.monotonic()
            few_descriptors[0].settimeout(TIMEOUT)
            few_descriptors[0].connect(("127.0.0.1", server.port))
            wait_until(lambda: len(caplog.messages) >= 2, "a second line")
            took = time.monotonic() - began
        finally:
            for fd in used:
                os.close(fd)
        assert b"x" == few_descriptors[0].recv(1)
    assert took > 0.99, "at most once a second, but for a tick"
    expected = (
        f"ioxide-reactor-0 cannot accept connections on 127.0.0.1 port {server.port}: Too many "
        "open files. Clients wait in the backlog, and the listener tries again every 100 ms; raise "
        "the limit with `ulimit -n`."
    )
    assert {expected} == set(caplog.messages)


@pytest.mark.parametrize("closed", ["at once", "while it rests"])
def test_a_listener_that_rests_can_be_closed(
    few_descriptors: list[socket.socket], own: bool, closed: str
) -> None:
    """Closed by the very call that tells of it, or later: it does not come back."""
    told: list[str] = []

    async def main() -> None:
        loop = the_loop()
        protocol = listed()
        async with listening(protocol, own) as server:

            def hear(_: object, context: dict[str, Any]) -> None:
                told.append(context["message"])
                if closed == "at once":
                    server.close()

            loop.set_exception_handler(hear)
            used = fill()
            try:
                few_descriptors[0].connect(server.sockets[0].getsockname())
                await until(lambda: told, "the exception handler")
                server.close()
            finally:
                for fd in used:
                    os.close(fd)
            few_descriptors[0].settimeout(TIMEOUT)
            with contextlib.suppress(ConnectionResetError):
                assert b"" == await asyncio.to_thread(few_descriptors[0].recv, 1)
            await asyncio.sleep(1.2)  # beyond asyncio's ACCEPT_RETRY_DELAY
        assert ["socket.accept() out of system resource"] == told
        assert [] == protocol.made

    run(main())
