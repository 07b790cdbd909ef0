# SPDX-License-Identifier: MIT
"""A driver without a loop, for tests of the core that tick it by hand."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from ioxide._driver.driver import Driver
from tests.support import SMALL, TIMEOUT


class Bench:
    """A driver without a loop, ticked by hand; with a listener whose connections go to `taken`."""

    def __init__(self) -> None:
        self.driver = Driver(SMALL)
        self.astray: list[Any] = []
        self.taken: list[Any] = []
        self.faults: list[object] = []
        self.driver.attach(
            loop=None,
            poll_fd=-1,
            on_connection=self.astray.append,
            on_fault=lambda message, error: self.faults.append((message, error)),
        )
        self.stack = contextlib.ExitStack()
        self.listener = self.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.driver.listen(self.listener.fileno(), self.taken.append)
        self.driver.wait(0)

    def client(self) -> socket.socket:
        return self.stack.enter_context(
            socket.create_connection(self.listener.getsockname(), timeout=TIMEOUT)
        )

    def tick(self) -> None:
        self.driver.wait(TIMEOUT)
        self.driver.dispatch()

    def connection(self) -> Any:
        self.client()
        while not self.taken:
            self.tick()
        conn = self.taken.pop()
        conn._read(True)
        self.driver.wait(0)  # submits the receive
        return conn

    def close(self) -> None:
        self.stack.close()
        self.driver.close()
