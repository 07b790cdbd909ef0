# SPDX-License-Identifier: MIT
"""A recv() or a flush() that nobody awaits is told of, as a coroutine is."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.smoke.bench import Bench
from tests.support import TIMEOUT

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def conn() -> Iterator[Any]:
    bench = Bench()
    yield bench.connection()
    bench.close()


def test_each_forgotten_await_warns(conn: Any) -> None:
    """By name, each time, though the core recycles the objects."""
    told: list[str] = []

    def show(message: Warning | str, category: type[Warning], *_: object) -> None:
        assert category is RuntimeWarning
        told.append(str(message).strip())  # and nothing of what it is about is kept

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show  # type: ignore[assignment]
        for _ in range(2):
            conn.recv()
            conn.recv(10)
            conn.flush()
    names = ["Connection.recv", "Connection.recv", "Connection.flush"] * 2
    assert [f"coroutine {name!r} was never awaited" for name in names] == told


def test_what_was_begun_or_closed_does_not_warn(conn: Any) -> None:
    """Nor does the one of a task that was cancelled before its first step."""
    with pytest.raises(StopIteration):
        conn.flush().send(None)
    conn.recv().close()
    read = conn.recv()
    assert "Waiter" in repr(type(read.send(None)))
    del read
    with pytest.raises(KeyError):
        conn.recv().throw(KeyError)
    told: list[str] = []

    def elsewhere() -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with pytest.raises(RuntimeError, match="belongs to"):
                conn.recv().send(None)
            told.extend(str(warning.message) for warning in caught)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(TIMEOUT)
    assert [] == told

    async def cancelled() -> None:
        task = asyncio.create_task(conn.recv())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    gc.collect()


def test_it_names_the_place_when_that_is_tracked(conn: Any) -> None:
    """sys.set_coroutine_origin_tracking_depth() holds for it: the file, the line, the function."""
    sys.set_coroutine_origin_tracking_depth(2)
    try:
        forgotten = conn.flush()
    finally:
        sys.set_coroutine_origin_tracking_depth(0)
    (file, _, function), (_, _, caller) = forgotten.cr_origin
    assert (__file__, "test_it_names_the_place_when_that_is_tracked") == (file, function)
    assert "pytest_pyfunc_call" == caller
    with pytest.warns(RuntimeWarning, match="Coroutine created at") as caught:
        del forgotten
    assert __file__ in str(caught[0].message)
    untracked = conn.flush()
    assert untracked.cr_origin is None
    untracked.close()
    assert ("flush", "Connection.flush") == (untracked.__name__, untracked.__qualname__)


def test_a_warning_may_keep_what_it_is_about(conn: Any) -> None:
    """What a recorded warning holds is whole, and may still be awaited; it warns once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        conn.flush()
        (warning,) = caught
        kept: Any = warning.source
        with pytest.raises(StopIteration):
            kept.send(None)
        caught.clear()
        del warning, kept
        gc.collect()
        assert [] == caught
        conn.flush()
        assert 1 == len(caught)


def test_one_in_a_cycle_warns(conn: Any) -> None:
    """The collector finds it as well."""
    cycle: list[Any] = [conn.recv()]
    cycle.append(cycle)
    del cycle
    with pytest.warns(RuntimeWarning, match=r"'Connection\.recv' was never awaited"):
        gc.collect()


def test_a_warning_that_is_an_error_is_reported(conn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With -W error it is an exception that nobody can be given: sys.unraisablehook() is told."""
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: told.append(report.exc_type))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            raise KeyError
        except KeyError:
            conn.recv()
    assert [RuntimeWarning] == told


def test_a_handler_that_forgets_an_await_is_told_of_under_dev() -> None:
    """Under -X dev the warning comes with the place where it was forgotten."""
    program = textwrap.dedent(
        """
        import socket
        import ioxide

        async def forgetful(conn):
            conn.write(b"x")
            conn.flush()

        config = ioxide.ServerConfig(port=0, ring_entries=64, cq_entries=1024, recv_slots=64)
        with ioxide.Server(forgetful, config) as server:
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                assert b"x" == client.recv(1)
        """
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    assert "RuntimeWarning: coroutine 'Connection.flush' was never awaited" in done.stderr
    assert "Coroutine created at" in done.stderr
    assert "in forgetful" in done.stderr
