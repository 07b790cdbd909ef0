# SPDX-License-Identifier: MIT
"""Fixtures of tests that give callbacks to asyncio's loop and to ours, by each method."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ioxide
from tests.support import SMALL

LOOPS: dict[str, Callable[[], Any]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "ioxide": lambda: ioxide.new_event_loop(SMALL),
}
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")


@pytest.fixture(params=LOOPS, name="loop")
def loop_fixture(request: pytest.FixtureRequest) -> Iterator[Any]:
    loop = LOOPS[request.param]()
    yield loop
    loop.close()


@pytest.fixture(name="ours")
def ours_fixture() -> Iterator[Any]:
    loop = ioxide.new_event_loop(SMALL)
    yield loop
    loop.close()


@pytest.fixture(name="told")
def told_fixture(loop: Any) -> list[dict[str, Any]]:
    """What the loop's exception handler is told."""
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    return told


def turns(loop: Any, count: int = 1) -> None:
    """Run `loop` for so many turns."""
    for _ in range(count):
        loop.call_soon(loop.stop)
        loop.run_forever()


def nothing(*_: object) -> None:
    """A callback."""


WAYS: dict[str, Callable[..., Any]] = {
    "soon": lambda loop, *args, **named: loop.call_soon(*args, **named),
    "at": lambda loop, *args, **named: loop.call_at(loop.time() - 1, *args, **named),
    "later": lambda loop, *args, **named: loop.call_later(-1.0, *args, **named),
    "later-int": lambda loop, *args, **named: loop.call_later(-1, *args, **named),
}


@pytest.fixture(params=WAYS, name="call")
def call_fixture(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Calls a function of a loop by one of its three methods."""
    return WAYS[request.param]


class Failed(Exception):
    """Of a callback."""
