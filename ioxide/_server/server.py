# SPDX-License-Identifier: MIT
"""Reactors, their listeners, and a graceful end."""

from __future__ import annotations

import contextlib
import errno
import inspect
import logging
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from ioxide._common.config import ServerConfig, given
from ioxide._common.counters import Counters
from ioxide._server.advice import advice, memory, processors
from ioxide._server.context import Reactor
from ioxide._server.handlers import Handler
from ioxide.errors import ReactorError

logger = logging.getLogger("ioxide")


_WAYS_OUT = {
    errno.EACCES: "ports below the sysctl net.ipv4.ip_unprivileged_port_start (1024) need root or "
    "CAP_NET_BIND_SERVICE: take a higher one",
    errno.EADDRINUSE: "something listens there already: end it, or take another port (0 is any "
    "that is free)",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address: take 127.0.0.1, or "
    "0.0.0.0 for all that it has",
    errno.EMFILE: "close some, or raise the limit with `ulimit -n`",
    errno.ENFILE: "close some, or raise the sysctl fs.file-max",
}


def _cannot_listen(config: ServerConfig, port: int, error: OSError) -> OSError:
    text = f"cannot listen on {config.host} port {port}: {error.strerror}"
    if error.errno in _WAYS_OUT and not isinstance(error, socket.gaierror):
        text += f"; {_WAYS_OUT[error.errno]}."
    return OSError(error.errno, text)


def _listen(config: ServerConfig, port: int) -> socket.socket:
    """A listening socket; each reactor has one, and the kernel distributes connections."""
    flags = socket.AI_PASSIVE | socket.AI_NUMERICSERV
    try:
        infos = socket.getaddrinfo(config.host, port, type=socket.SOCK_STREAM, flags=flags)
        family, kind, protocol, _, address = infos[0]
        sock = socket.socket(family, kind, protocol)  # not inheritable: PEP 446
    except OSError as error:
        raise _cannot_listen(config, port, error) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if config.reactors > 1:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not config.dual_stack)
        # Accepted sockets inherit it from the listener: no setsockopt(2) for each of them.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind(address)
        sock.listen(config.listen_backlog)
    except OSError as error:
        sock.close()
        raise _cannot_listen(config, port, error) from error
    except BaseException:
        sock.close()
        raise
    return sock


class Server:
    """Serves every connection with `handler`, an ``async def`` that takes a `Connection`.

    A context manager: entering starts the reactors and returns when they accept; leaving stops
    them.  ``Server(handler, ServerConfig(port=0))`` listens on a free port, see `port`.

    ``on_start(reactor)`` is called on the thread of each `Reactor`, inside its running loop, before
    it accepts: the place for tickers (`Reactor.add_ticker()`) and for what each reactor needs of
    its own.  Reactors start one after the other.

    What this machine is too small for is logged as a warning: more reactors than processors, and
    `IncrementalConfig` buffers of more than half of its memory.

    Entering raises `OSError` when a port cannot be had, `RingError` when the kernel refuses a ring,
    and what `on_start` raised; nothing is left running then.
    """

    def __init__(
        self,
        handler: Handler,
        config: ServerConfig | None = None,
        *,
        on_start: Callable[[Reactor], object] | None = None,
    ) -> None:
        if not callable(handler):
            raise TypeError(
                f"handler must be an async function that takes a Connection, not {handler!r}"
            )
        if on_start is not None and (
            not callable(on_start) or inspect.iscoroutinefunction(on_start)
        ):
            raise TypeError(
                f"on_start must be a plain function that takes a Reactor, not {on_start!r}: "
                "it may start asyncio tasks with reactor.loop.create_task()"
            )
        self._handler = handler
        self._on_start = on_start
        self.config = given(config)
        self.reactors: tuple[Reactor, ...] = ()
        self.ports: tuple[int, ...] = ()
        self._ended = threading.Event()
        self._lock = threading.Lock()  # guards the next one
        self._running = self.config.reactors
        self._stopping = False

    @property
    def port(self) -> int:
        """The port that is listened on; the one the kernel chose for ``port=0``."""
        if not self.ports:
            raise RuntimeError("the server has not been started: enter it first")
        return self.ports[0]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is None:
            self.stop()
        else:
            with contextlib.suppress(ReactorError):  # the body's own exception says more
                self.stop()

    def start(self) -> None:
        """Start the reactors; what entering the context does."""
        if self.reactors:
            raise RuntimeError("the server was started before: make a new one")
        config = self.config
        for text in advice(config, processors=processors(), memory=memory()):
            logger.warning("%s", text)
        self._ended.clear()  # where an earlier attempt has failed
        self._running = config.reactors
        rows: list[list[socket.socket]] = []
        started: list[Reactor] = []
        try:
            wanted = (config.port, *config.extra_ports)
            for _ in range(config.reactors):
                row: list[socket.socket] = []
                rows.append(row)
                for port in wanted:
                    row.append(_listen(config, port))
                # Port 0 is resolved once, then shared by all.
                wanted = tuple(sock.getsockname()[1] for sock in row)
            for index, row in enumerate(rows):
                reactor = Reactor(
                    self._handler,
                    config,
                    row,
                    name=f"ioxide-reactor-{index}",
                    on_start=self._on_start,
                    on_end=self._reactor_ended,
                )
                started.append(reactor)  # first: Ctrl-C may come while start() waits
                reactor.start()
        except BaseException:
            for reactor in started:
                reactor.stop()
            for reactor in started:
                if reactor.is_alive:
                    reactor.join()
            for row in rows:
                for sock in row:
                    sock.close()
            raise
        self.ports = wanted
        self.reactors = tuple(started)
        if self._stopping:  # meanwhile, by another thread
            self.stop()

    def _reactor_ended(self, reactor: Reactor) -> None:
        """The last thing that a reactor's thread does."""
        with self._lock:
            self._running -= 1
        if reactor.fault is not None or not self._running:
            self._ended.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the server ends, at most `timeout` seconds; True when it has.

        Raises `ReactorError` when a reactor ended by itself.
        """
        ended = self._ended.wait(timeout)
        self._raise_fault()
        return ended

    def stop(self) -> None:
        """Stop gracefully and wait for the end; from any thread but a reactor's own.

        See `Reactor.stop()`.  Raises `ReactorError` when a reactor had ended by itself.

        A handler, and a thread that one waits for, cannot wait for the end of its own reactor: this
        raises `DeadlockError` there, after the stop has begun.  Have it begin with
        ``for reactor in server.reactors: reactor.stop()``, for which `wait()` can be waited.
        """
        self._stopping = True
        for reactor in self.reactors:
            reactor.stop()
        for reactor in self.reactors:
            reactor.join()
        self._ended.set()
        self._raise_fault()

    def _raise_fault(self) -> None:
        for reactor in self.reactors:
            if reactor.fault is not None:
                raise ReactorError(
                    f"{reactor.name} ended by {reactor.fault!r}; its connections are closed"
                ) from reactor.fault

    def stats(self) -> Counters:
        """The counters of all reactors added up; from any thread."""
        return Counters.sum(reactor.stats() for reactor in self.reactors)
