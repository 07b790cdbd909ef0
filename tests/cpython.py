# SPDX-License-Identifier: MIT
"""CPython's own tests of asyncio, with our loop instead of theirs: ``python -m tests.cpython``.

They come with the interpreter (the package ``test``, which some distributions leave out), in the
version that matches it.  What is run are the classes that ask for a loop by a method of theirs.

Exit status 0 when all passed, 1 when one did not, 3 when too few ran to prove anything.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import sys
import unittest
from typing import Any

import ioxide
from tests.support import SMALL

# Fewer than in any of 3.11 to 3.13.
ENOUGH = 180

EXPECTED_FAILURES: set[str] = set()
"""What fails here and not on asyncio, with the reason beside it; one that passes makes it void."""


def new_loop() -> ioxide.Loop:
    return ioxide.new_event_loop(SMALL)


def _module(name: str) -> Any:
    return importlib.import_module(f"test.test_asyncio.{name}")


def cases() -> list[type[unittest.TestCase]]:
    """Their test classes, each with a loop of ours."""
    utils, events = _module("utils"), _module("test_events")
    base = utils.TestCase
    ours = {
        "create_event_loop": lambda _self: new_loop(),
        "new_loop": lambda _self: new_loop(),
    }

    def case(name: str, *bases: type) -> type[unittest.TestCase]:
        return type(name, bases, dict(ours))

    class WithLoop:
        """For classes that make a loop in setUp(): it is replaced before the test."""

        loop: asyncio.AbstractEventLoop

        def setUp(self) -> None:
            super().setUp()  # type: ignore[misc]
            self.loop.close()
            self.loop = new_loop()
            self.set_event_loop(self.loop)  # type: ignore[attr-defined]
            gc.collect()  # of the loop that went: some of them count warnings

    return [
        case("Events", events.UnixEventLoopTestsMixin, events.SubprocessTestsMixin, base),
        case("StartServer", _module("test_server").BaseStartServer, unittest.TestCase),
        case("Sendfile", _module("test_sendfile").SendfileTestsBase, base),
        case("StartTLS", _module("test_sslproto").BaseStartTLS, unittest.TestCase),
        case(
            "Buffered", _module("test_buffered_proto").BaseTestBufferedProtocol, unittest.TestCase
        ),
        case("Sockets", _module("test_sock_lowlevel").BaseSockTestsMixin, base),
        case("Streams", WithLoop, _module("test_streams").StreamTests),
        case("TLS", WithLoop, _module("test_ssl").TestSSL),
    ]


def main() -> int:
    try:
        classes = cases()
    except ImportError as error:
        print(f"void: this Python has no tests of asyncio ({error})", file=sys.stderr)
        return 3
    loader = unittest.TestLoader()
    suite = unittest.TestSuite(loader.loadTestsFromTestCase(each) for each in classes)
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    red = {test.id().rsplit(".", 1)[-1] for test, _ in (*result.failures, *result.errors)}
    print(f"{result.testsRun} tests of CPython {sys.version.split()[0]}, not passed: {sorted(red)}")
    if red - EXPECTED_FAILURES:
        return 1
    ran = result.testsRun - len(result.skipped) - len(red)
    if ran < ENOUGH or EXPECTED_FAILURES - red:
        print(f"void: {ran} passed, {ENOUGH} are expected", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
