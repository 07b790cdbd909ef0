# SPDX-License-Identifier: MIT
"""What is called when an await has something to go on with, and what it is called with."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import ioxide
from tests.support import connect, read_exactly, serve


class Subclass(asyncio.Task[Any]):
    """Of the Task that is in C."""


TASKS: dict[str, Callable[..., Any]] = {
    "c": asyncio.Task,
    "subclass": Subclass,
    "python": asyncio.tasks._PyTask,  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("kind", TASKS)
def test_each_kind_of_task_goes_on_and_is_cancelled(kind: str) -> None:
    """A task that a completion resumes gets its bytes, and a cancelled one its message."""
    seen: list[object] = []

    async def read(conn: ioxide.Connection) -> bytes:
        try:
            return await conn.recv()
        except asyncio.CancelledError as error:
            seen.append(error.args)
            raise

    def make(coroutine: Coroutine[Any, Any, bytes]) -> Any:
        return TASKS[kind](coroutine, loop=asyncio.get_running_loop())

    async def handler(conn: ioxide.Connection) -> None:
        for _ in range(3):
            conn.write(await make(read(conn)))
        cancelled = make(read(conn))
        await asyncio.sleep(0)
        cancelled.cancel("enough")
        try:
            await cancelled
        except asyncio.CancelledError:
            conn.write(b"cancelled")
        await conn.flush()

    with serve(handler) as server, connect(server) as client:
        for _ in range(3):
            client.sendall(b"ping")
            assert b"ping" == read_exactly(client, 4)
        assert b"cancelled" == read_exactly(client, 9)
    assert [("enough",)] == seen


def test_a_callback_is_given_what_it_was_added_to() -> None:
    """A callback gets the waiter, as a future's callback gets the future, also a C function."""
    results: list[bool] = []

    async def handler(conn: ioxide.Connection) -> None:
        called: list[object] = []
        read = conn.recv()
        waiter = read.send(None)
        waiter.add_done_callback(called.append)
        conn.write(b"go")
        while not called:
            await asyncio.sleep(0.001)
        results.append(called == [waiter])
        try:
            read.send(None)
        except StopIteration as stop:
            conn.write(stop.value)
        await conn.flush()

    with serve(handler) as server, connect(server) as client:
        assert b"go" == read_exactly(client, 2)
        client.sendall(b"ping")
        assert b"ping" == read_exactly(client, 4)
    assert [True] == results


@pytest.mark.parametrize("first", ["asyncio", "ioxide._ring._core"])
def test_asyncio_is_in_c_whatever_is_imported_first(first: str) -> None:
    """Otherwise asyncio.current_task() knows nothing of the tasks that the core resumes."""
    program = f"""
import sys, types
package = types.ModuleType("ioxide")  # whose own imports would come first
package.__path__ = {list(ioxide.__path__)!r}
sys.modules["ioxide"] = package
import {first}
import _asyncio, asyncio
import ioxide._ring._core

async def main():
    return asyncio.current_task()

assert asyncio.Task is _asyncio.Task
loop = asyncio.new_event_loop()
task = loop.create_task(main())
found = loop.run_until_complete(task)
assert found is task, f"the current task is {{found}}"
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert 0 == done.returncode, done.stderr
