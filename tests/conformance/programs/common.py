# SPDX-License-Identifier: MIT
"""What the programs share: the loop they are told to use, certificates, ports, bounded waits."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
LIMIT = 60.0
LOOP = sys.argv[1] if len(sys.argv) > 1 else "asyncio"
TLS = len(sys.argv) > 2 and sys.argv[2] == "tls"


def new_loop() -> asyncio.AbstractEventLoop:
    """A loop of the kind that the command line names."""
    if LOOP == "asyncio":
        return asyncio.SelectorEventLoop()
    import ioxide

    return ioxide.new_event_loop()


def use_policy() -> None:
    """Have ``asyncio.new_event_loop()`` make such loops, for programs that take no factory."""
    if LOOP == "ioxide":
        import ioxide

        asyncio.set_event_loop_policy(ioxide.EventLoopPolicy())


def on_the_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Assert that a program runs on what it was told to use."""
    kind = f"{type(loop).__module__}.{type(loop).__name__}"
    assert (LOOP == "ioxide") == kind.startswith("ioxide."), f"this ran on {kind}, not on {LOOP}"


def run(main: Any) -> None:
    """Run the main coroutine within `LIMIT`."""

    async def bounded() -> None:
        on_the_loop(asyncio.get_running_loop())
        await asyncio.wait_for(main, LIMIT)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(bounded())


@contextlib.contextmanager
def certificate() -> Iterator[tuple[str, str, str]]:
    """Files of a certificate for localhost: chain, key, authority."""
    import trustme

    authority = trustme.CA()
    issued = authority.issue_cert("localhost", HOST)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        chain, key, root = directory / "chain.pem", directory / "key.pem", directory / "root.pem"
        chain.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        authority.cert_pem.write_to_path(str(root))
        yield str(chain), str(key), str(root)


def server_context(chain: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    return context


_RESERVATIONS: list[socket.socket] = []


def free_port() -> int:
    """A port for a server that sets SO_REUSEADDR, as asyncio and the ASGI servers do.

    A socket that is bound and does not listen keeps it until the process ends: nobody else gets
    it from the kernel as any free port, and a server can listen beside it (socket(7)).
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind((HOST, 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _RESERVATIONS.append(sock)
    return int(sock.getsockname()[1])


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"not within {LIMIT:.0f} s: {what}"
        time.sleep(0.05)


def get(port: int, root: str | None, path: str = "/") -> tuple[int, bytes]:
    """The status and body of a GET, by a client that no event loop knows."""
    import http.client

    connection: http.client.HTTPConnection
    if root is None:
        connection = http.client.HTTPConnection(HOST, port, timeout=LIMIT)
    else:
        context = ssl.create_default_context(cafile=root)
        connection = http.client.HTTPSConnection(HOST, port, timeout=LIMIT, context=context)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read()


def answers(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def running(argv: Sequence[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server as a process of its own, asked to end by SIGTERM; it has to end with status 0."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, *argv],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "CONFORMANCE_LOOP": LOOP},
            start_new_session=True,
        )
        try:
            wait_for(lambda: answers(port) or process.poll() is not None, "the server listens")
            assert process.poll() is None, "the server ended at once"
            yield process
            process.send_signal(signal.SIGTERM)
            status = process.wait(LIMIT)
            assert status in (0, -signal.SIGTERM), f"the server ended with status {status}"
        except BaseException:
            log.seek(0)
            print(log.read().decode(errors="replace")[-4000:], file=sys.stderr)
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def many(port: int, root: str | None, *, requests: int, workers: int) -> None:
    """Every request is answered, and each of the workers has answered some of them."""
    pids = set()
    for _ in range(requests):
        status, body = get(port, root)
        assert status == 200, status
        loop, pid = body.decode().split()
        assert loop == LOOP, f"a worker ran on {loop}"
        pids.add(pid)
        if len(pids) == workers:
            return
    raise AssertionError(f"{requests} requests were answered by {len(pids)} workers of {workers}")
