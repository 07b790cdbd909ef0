# SPDX-License-Identifier: MIT
"""ioxide: an io_uring reactor for Python.

One thread, one io_uring, one asyncio loop.  A handler is an ordinary ``async def`` that takes a
`Connection`; a `Server` runs it for each connection.  `probe()` tells what this kernel's io_uring
can do, by doing it.  `run()` and `new_event_loop()` put any asyncio program on the ring.
"""

from __future__ import annotations

import sys

from ioxide._asyncio.detaching import detached
from ioxide._asyncio.loop import Loop
from ioxide._asyncio.runner import new_event_loop, run
from ioxide._asyncio.transports import Transport
from ioxide._common.config import IncrementalConfig, ServerConfig, WriteOverflow
from ioxide._common.counters import Counters
from ioxide._common.modes import ContinuationMode
from ioxide._driver.connection import Connection, ReadBlock
from ioxide._driver.driver import Driver
from ioxide._driver.futures import Future
from ioxide._probe.capabilities import Capability, Finding, ProbeReport, probe
from ioxide._server.context import Reactor, ReactorContext
from ioxide._server.handlers import Handler
from ioxide._server.server import Server
from ioxide._server.tickers import Ticker
from ioxide.errors import (
    ConfigError,
    DeadlockError,
    Problem,
    ReactorError,
    RingError,
    StoppedError,
    UnsupportedError,
)

if sys.version_info < (3, 14):  # where asyncio deprecates them
    from ioxide._asyncio.runner import EventLoopPolicy as EventLoopPolicy

__version__ = "0.1.0.dev0"

__all__ = [
    "Capability",
    "ConfigError",
    "Connection",
    "ContinuationMode",
    "Counters",
    "DeadlockError",
    "Driver",
    "Finding",
    "Future",
    "Handler",
    "IncrementalConfig",
    "Loop",
    "ProbeReport",
    "Problem",
    "Reactor",
    "ReactorContext",
    "ReactorError",
    "ReadBlock",
    "RingError",
    "Server",
    "ServerConfig",
    "StoppedError",
    "Ticker",
    "Transport",
    "UnsupportedError",
    "WriteOverflow",
    "detached",
    "new_event_loop",
    "probe",
    "run",
]

# The modules are private (docs/architecture.md): a repr, help() and a pickle name what programs
# import. Exceptions name ioxide.errors, which is public itself.
for _public in tuple(globals().values()):
    if getattr(_public, "__module__", "").startswith("ioxide._"):
        _public.__module__ = __name__
del _public
