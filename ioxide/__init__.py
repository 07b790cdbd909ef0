# SPDX-License-Identifier: MIT
"""ioxide: an io_uring reactor for Python.

One thread, one io_uring, one asyncio loop.  A handler is an ordinary ``async def`` that takes a
`Connection`; a `Server` runs it for each connection.  `probe()` tells what this kernel's io_uring
can do, by doing it.  `run()` and `new_event_loop()` put any asyncio program on the ring.
"""

from __future__ import annotations

import sys

from ioxide.capabilities import Capability, Finding, ProbeReport, probe
from ioxide.config import IncrementalConfig, ServerConfig, WriteOverflow
from ioxide.connection import Connection, ReadBlock
from ioxide.context import Reactor, ReactorContext
from ioxide.counters import Counters
from ioxide.detaching import detached
from ioxide.driver import Driver
from ioxide.errors import (
    ConfigError,
    DeadlockError,
    Problem,
    ReactorError,
    RingError,
    StoppedError,
    UnsupportedError,
)
from ioxide.futures import Future
from ioxide.handlers import Handler
from ioxide.loop import Loop
from ioxide.modes import ContinuationMode
from ioxide.runner import new_event_loop, run
from ioxide.server import Server
from ioxide.tickers import Ticker
from ioxide.transports import Transport

if sys.version_info < (3, 14):  # where asyncio deprecates them
    from ioxide.runner import EventLoopPolicy as EventLoopPolicy

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
