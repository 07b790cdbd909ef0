# SPDX-License-Identifier: MIT
"""``python hostile_finalizers.py ALLOCATIONS``: finalizers that do their worst inside every call.

Each case arms the collector so that the n-th allocation from there on runs it, n from 0 to
ALLOCATIONS, and with it a finalizer that does something to the very connection which is being used.
(Until CPython 3.11 that is inside whatever allocates, the C core included; later, when the
interpreter collects.) The free lists of the core are emptied before, so that it does
allocate. A script and not a test, because what goes wrong may be a process that spins with the GIL
held. The case that runs is named on standard error; the last line on standard output is, as JSON,
how many finalizers ran and what went wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import json
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import ioxide
from tests.support import SMALL, TIMEOUT, connect, until

Action = Callable[[], object]

kept: list[object] = []
ran = 0


class Trap:
    """A cycle, whose finalizer the collector runs."""

    def __init__(self, action: Action) -> None:
        self.itself = self
        self.action = action

    def __del__(self) -> None:
        global ran
        ran += 1
        gc.set_threshold(700)
        with contextlib.suppress(OSError, RuntimeError, BufferError):
            self.action()


def arm(action: Action, allocations: int) -> None:
    """Run `action` from the collector, once so many tracked objects were made from here on."""
    gc.collect()
    gc.disable()
    Trap(action)
    gc.set_threshold(gc.get_count()[0] + allocations)
    gc.enable()


def disarm() -> None:
    gc.set_threshold(700)
    gc.enable()
    gc.collect()


def empty_the_free_lists(conn: ioxide.Connection) -> None:
    """Keep what the core would recycle, so that it has to allocate."""
    for _ in range(4):
        conn._flush_threadsafe(kept.append)
        spare = conn.flush()
        spare.close()
        kept.append(spare)


class Case:
    """One connection: a call of its handler's, and what a finalizer does in the middle of it."""

    def __init__(self, call: str, action: str, allocations: int) -> None:
        self.name = f"{call} {action} {allocations}"
        self.call = call
        self.action = action
        self.allocations = allocations
        self.armed = threading.Event()
        self.ended = threading.Event()
        self.problems: list[str] = []

    async def handle(self, conn: ioxide.Connection) -> None:
        try:
            if self.call.endswith("ready"):
                while not conn._queued:
                    await asyncio.sleep(0.0005)
            if self.call == "flush":
                conn.write(bytes(4 << 20))
            empty_the_free_lists(conn)
            asyncio.get_running_loop().call_soon(self.armed.set)
            await CALLS[self.call](self, conn)
        except (OSError, BufferError, asyncio.CancelledError):
            pass
        except RuntimeError as error:
            if "another task is already reading" not in str(error):
                raise
        finally:
            disarm()
            self.ended.set()

    def set_off(self, conn: ioxide.Connection) -> None:
        task = asyncio.current_task()
        assert task is not None
        actions: dict[str, Action] = {
            "abort": conn.abort,
            "close": conn.close,
            "write": lambda: conn.write(b"from a finalizer"),
            "queue": lambda: conn.write_threadsafe(b"from a finalizer"),
            "cancel": task.cancel,
            "collect": gc.collect,
            "end-reads": conn._end_reads,
            "read": lambda: self._read_by_hand(conn),
        }
        arm(actions[self.action], self.allocations)

    @staticmethod
    def _read_by_hand(conn: ioxide.Connection) -> None:
        other = conn.recv()
        with contextlib.suppress(StopIteration):
            other.send(None)
        other.close()

    def check_end(self, conn: ioxide.Connection, data: object) -> None:
        """Nothing was read: that is the end of the stream, which has to be there."""
        if not data and not conn.closed and self.action in ("abort", "read", "write", "queue"):
            self.problems.append(f"{self.name}: read {data!r} although the stream goes on")
        if not data and conn._broken:
            self.problems.append(f"{self.name}: read {data!r} from an aborted connection")


async def _recv(case: Case, conn: ioxide.Connection) -> None:
    case.set_off(conn)
    case.check_end(conn, await conn.recv())


async def _recv_made_before(case: Case, conn: ioxide.Connection) -> None:
    waiting = conn.recv()
    case.set_off(conn)
    case.check_end(conn, await waiting)


async def _read(case: Case, conn: ioxide.Connection) -> None:
    block = conn.read()
    case.set_off(conn)
    async with block as slices:
        case.check_end(conn, slices)


async def _flush(case: Case, conn: ioxide.Connection) -> None:
    case.set_off(conn)
    await conn.flush()


async def _write(case: Case, conn: ioxide.Connection) -> None:
    case.set_off(conn)
    conn.write(b"an answer")
    conn.write_threadsafe(b" and more")
    await conn.flush()


async def _close(case: Case, conn: ioxide.Connection) -> None:
    conn.write_threadsafe(b"the last")
    case.set_off(conn)
    conn.close()


async def _flush_threadsafe(case: Case, conn: ioxide.Connection) -> None:
    conn.write(b"queued")
    case.set_off(conn)
    future = conn.flush_threadsafe()
    with contextlib.suppress(OSError):
        await future


async def _wait_for(case: Case, conn: ioxide.Connection) -> None:
    case.set_off(conn)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(conn.recv(), TIMEOUT)


CALLS: dict[str, Callable[[Case, ioxide.Connection], Awaitable[None]]] = {
    "recv": _recv,
    "recv-made-before": _recv_made_before,
    "recv-ready": _recv,
    "read": _read,
    "read-ready": _read,
    "flush": _flush,
    "write": _write,
    "close": _close,
    "flush-threadsafe": _flush_threadsafe,
    "wait-for": _wait_for,
}
ACTIONS = ("abort", "close", "write", "queue", "cancel", "collect", "end-reads", "read")


def play(server: ioxide.Server, case: Case) -> list[str]:
    """Be the client of one case; returns what went wrong."""
    with contextlib.ExitStack() as stack, contextlib.suppress(ConnectionResetError):
        stack.callback(lambda: case.ended.wait(TIMEOUT / 2))
        client = stack.enter_context(connect(server))
        if case.call.endswith("ready"):
            client.sendall(b"here already")
        case.armed.wait(TIMEOUT / 2)
        client.sendall(b"the end")
        while client.recv(1 << 20):
            pass
    if not case.ended.is_set():
        case.problems.append(f"{case.name}: the handler sleeps for ever")
    return case.problems


def main(allocations: int) -> dict[str, Any]:
    problems: list[str] = []
    cases: list[Case] = []

    async def handler(conn: ioxide.Connection) -> None:
        await cases[-1].handle(conn)

    # The read clock: a connection that it finds again and again would be a spin.
    config = SMALL.replace(read_timeout_ms=500, stop_timeout_ms=200)
    with ioxide.Server(handler, config) as server:
        gc.freeze()
        for call in CALLS:
            for action in ACTIONS:
                for count in range(allocations):
                    cases.append(Case(call, action, count))
                    print(cases[-1].name, file=sys.stderr, flush=True)
                    faulthandler.dump_traceback_later(TIMEOUT * 0.9, exit=True)
                    problems += play(server, cases[-1])
                    if problems:
                        return {"ran": ran, "problems": problems}
        until(lambda: server.stats().connections_now == 0, "the end of every connection")
        stats = server.stats()
        for name in ("buffers_held_now", "slices_lent_now", "starved_now", "memory_faults"):
            if getattr(stats, name):
                problems.append(f"{name} is {getattr(stats, name)}")
        if stats.handler_faults:
            problems.append(f"handler_faults is {stats.handler_faults}")
    return {"ran": ran, "cases": len(cases), "problems": problems}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))), flush=True)
