# SPDX-License-Identifier: MIT
"""The tasks that run a handler, one for each connection, on the loop of one thread."""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ioxide._driver.connection import Connection

if TYPE_CHECKING:
    from ioxide._driver.driver import Driver

logger = logging.getLogger("ioxide")

Handler = Callable[[Connection], Awaitable[object]]

# What a socket reports when the peer is lost, beside the ConnectionErrors (tcp(7), ip(7)).
_LOST = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}


def _is_loss(error: Exception) -> bool:
    """Whether the error, or each error of a group, says only that the peer is lost."""
    if isinstance(error, ExceptionGroup):
        return all(map(_is_loss, error.exceptions))
    return isinstance(error, OSError) and (
        isinstance(error, ConnectionError) or error.errno in _LOST
    )


class Handlers:
    """Runs `handler` for connections on `loop`; used on that loop's thread alone."""

    def __init__(
        self, handler: Handler, driver: Driver, loop: asyncio.AbstractEventLoop, name: str
    ) -> None:
        self._handler = handler
        self._driver = driver
        self._loop = loop
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, connection: Connection) -> None:
        """Start the handler's task for `connection`."""
        task = self._loop.create_task(self._handle(connection))
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._ended, connection))

    async def finish(self, timeout_ms: int) -> None:
        """Wait until every handler has ended; after `timeout_ms` cancel those that have not."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_ms / 1000)
        if self._tasks:
            logger.warning(
                "%s: %d handlers did not end within stop_timeout_ms=%d and are cancelled",
                self._name,
                len(self._tasks),
                timeout_ms,
            )
            for task in self._tasks:
                task.cancel()

    async def clean_up(self, timeout_ms: int) -> None:
        """Wait at most `timeout_ms` for handlers that were cancelled.

        The runner cancels every task once more when it is left, which would interrupt what these
        still await.
        """
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_ms / 1000)

    def _ended(self, connection: Connection, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        connection.close()  # again for a task that was cancelled before its first step

    async def _handle(self, connection: Connection) -> None:
        """Run the handler and release the connection, exactly once, however the handler ends."""
        try:
            await self._handler(connection)
        except Exception as error:
            if _is_loss(error) and (connection.closed or connection._broken):
                # The peer is lost, or another task has closed the connection: no fault here.
                logger.debug("%s: handler of %r ended by %r", self._name, connection, error)
            else:
                self._fault(connection, error)
        finally:
            connection.close()

    def _fault(self, connection: Connection, error: Exception) -> None:
        self._driver.handler_fault()
        connection._faulted()
        logger.error("%s: handler of %r raised %r", self._name, connection, error, exc_info=error)
        self._driver.tell_record("a handler raised an exception")
