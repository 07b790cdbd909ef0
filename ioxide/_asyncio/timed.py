# SPDX-License-Identifier: MIT
"""Times a protocol's callbacks, for a loop in debug mode.

asyncio times each handle that it runs; a transport's callbacks from the ring's tick have no handle.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

logger = logging.getLogger("asyncio")


class Timed(Protocol):
    """A transport; its loop has the clock and the limit."""

    _loop: Any

    def get_protocol(self) -> Any: ...


def timed(transport: Timed, name: str, callback: Callable[..., T]) -> Callable[..., T]:
    """`callback`; it logs, as asyncio does, when it took ``loop.slow_callback_duration`` or more.

    The message names the protocol's method `name` and the transport.
    """
    loop: Any = transport._loop
    protocol = type(transport.get_protocol()).__qualname__

    def call(*args: Any) -> T:
        began = loop.time()
        try:
            return callback(*args)
        finally:
            took = loop.time() - began
            if took >= loop.slow_callback_duration:
                what = f"<{protocol}.{name}() of {transport!r}>"
                logger.warning("Executing %s took %.3f seconds", what, took)

    return call


class TimedProtocol:
    """A protocol whose methods are `timed()`; each is wrapped when it is looked up."""

    def __init__(self, transport: Timed, protocol: Any) -> None:
        self._transport = transport
        self._protocol = protocol

    def __getattr__(self, name: str) -> Any:
        return timed(self._transport, name, getattr(self._protocol, name))
