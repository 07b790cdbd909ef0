# SPDX-License-Identifier: MIT
"""Reproducers of errata that were seen on few releases or none, shown what a bad kernel shows.

Each is run on this kernel with what it sees of it made worse, in the one place where the defect
would be seen; on the way there all its controls hold.
"""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ioxide._errata import complaints, leaving, overwritten, polls, sending, unix, upgraded
from ioxide._errata.present import ErratumPresent, NotTried, needed_by
from ioxide._probe.rawring import Completion, RawRing
from ioxide._ring import lib

pytestmark = pytest.mark.lab

Found = list[Completion]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[RawRing, Found], Found]], None]:
    """Changes what every ring's `collect` returns."""
    collect = RawRing.collect

    def changed(change: Callable[[RawRing, Found], Found]) -> None:
        def forged(ring: RawRing, *args: Any, **options: Any) -> Found:
            return change(ring, collect(ring, *args, **options))

        monkeypatch.setattr(RawRing, "collect", forged)

    return changed


def test_poll_that_says_more_and_is_gone(seen: Callable[..., None]) -> None:
    """IOX-ERR-019: F_MORE on the last completion, and a cancel that finds nothing."""

    def change(_: RawRing, found: Found) -> Found:
        return [
            c._replace(flags=c.flags | lib.IOX_CQE_F_MORE)
            if c.user_data == polls.POLL
            else c._replace(res=-2)
            for c in found
        ]

    seen(change)
    with pytest.raises(ErratumPresent, match=r"IOX-ERR-019: .* MORE, and a cancel finds no poll"):
        polls.last_completion_of_a_nested_poll()


def test_ring_that_has_lost_a_poll_stays(
    seen: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """IOX-ERR-020: the kernel would complain of its close, five minutes later."""
    monkeypatch.setattr(polls, "LASTING", [])
    seen(lambda _, found: [c for c in found if c.user_data == polls.UPDATE])
    with pytest.raises(ErratumPresent, match=r"IOX-ERR-020: .*nothing of the poll"):
        polls.update_that_makes_a_poll_fire()
    (ring,) = polls.LASTING
    os.fstat(ring.fd)
    ring.close()


def test_ring_that_has_lost_nothing_is_closed(
    seen: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """IOX-ERR-020: a poll that completes, with another result, leaves nothing behind."""
    monkeypatch.setattr(polls, "LASTING", [])
    rings = []

    def change(ring: RawRing, found: Found) -> Found:
        rings.append((ring, ring.fd))
        return [c._replace(res=0) for c in found]

    seen(change)
    with pytest.raises(ErratumPresent, match=r"IOX-ERR-020: the poll's result is 0"):
        polls.update_that_makes_a_poll_fire()
    assert not polls.LASTING
    ((_, fd),) = rings
    with pytest.raises(OSError):
        os.fstat(fd)


@pytest.mark.needs(*needed_by(unix.end_of_a_stream_right_behind_a_message))
def test_end_that_is_missed(seen: Callable[..., None]) -> None:
    """IOX-ERR-021: the message with F_MORE, and nothing behind it."""

    def change(_: RawRing, found: Found) -> Found:
        assert [len(unix.MESSAGE), 0] == [c.res for c in found]
        return [found[0]._replace(flags=found[0].flags | lib.IOX_CQE_F_MORE)]

    seen(change)
    with pytest.raises(ErratumPresent, match=r"IOX-ERR-021: res=123 .*of the end nothing"):
        unix.end_of_a_stream_right_behind_a_message()


def test_control_data_that_came(seen: Callable[..., None]) -> None:
    """IOX-ERR-022: the message's header says that control data came, and it is SCM_INQ."""

    def change(ring: RawRing, found: Found) -> Found:
        kept: list[bytearray] = [one[0] for one in ring._alive]  # type: ignore[index]
        header = next(one for one in kept if len(one) == struct.calcsize("=QI4xQQQQi4x"))
        held = next(one for one in kept if len(one) == unix.CONTROL)
        fields = [*struct.unpack("=QI4xQQQQi4x", header)]
        fields[5] = 24
        header[:] = struct.pack("=QI4xQQQQi4x", *fields)
        held[:20] = struct.pack("=QiiI", 20, 1, unix.SCM_INQ, 0)
        return found

    seen(change)
    with pytest.raises(ErratumPresent, match=r"IOX-ERR-022: 24 bytes .* \(SCM_INQ\), 20 bytes"):
        unix.control_message_that_nobody_asked_for()


@pytest.mark.needs(*needed_by(sending.vector_of_another_buffer))
@pytest.mark.parametrize("way", sending.WAYS)
def test_memory_of_another_buffer(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """IOX-ERR-025: memory outside of the named buffer arrives, whichever send it is of."""
    outside = sending.MESSAGE[::-1]

    def vectored(asked: str, *, within: bool) -> tuple[Found, bytes]:
        if within:
            return [Completion(0, -22, 0)], b""
        return (
            ([Completion(0, 4096, 0)], outside) if asked == way else ([Completion(0, -14, 0)], b"")
        )

    monkeypatch.setattr(sending, "_vectored", vectored)
    with pytest.raises(ErratumPresent, match=f"IOX-ERR-025: {way}: res=4096: sent was memory"):
        sending.vector_of_another_buffer()


def test_thread_that_waits_for_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """IOX-ERR-029: the thread is there for 5 s more where a worker was asked for."""
    really = leaving._leaving

    def leaving_late(*, worker: bool) -> float:
        return really(worker=worker) + worker * leaving.IDLE_S

    monkeypatch.setattr(leaving, "_leaving", leaving_late)
    with pytest.raises(ErratumPresent, match=r"IOX-ERR-029: the thread took 5\.\d s to end"):
        leaving.thread_with_an_idle_worker()


@pytest.mark.needs(*needed_by(overwritten.entry_that_is_overwritten))
def test_receive_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """IOX-ERR-031: the process of the receive is there after its time and after SIGKILL."""
    real, pids = os.waitpid, []

    def never(pid: int, _: int) -> tuple[int, int]:
        pids.append(pid)
        return 0, 0

    monkeypatch.setattr(os, "waitpid", never)
    monkeypatch.setattr(overwritten, "LIMIT_S", 0.2)
    with pytest.raises(ErratumPresent, match=r"IOX-ERR-031: .* nor by SIGKILL"):
        overwritten.entry_that_is_overwritten()
    monkeypatch.undo()
    assert real(pids[0], 0)[0] == pids[0]


def _ending(text: bytes, status: int | None) -> Callable[[int, int], tuple[bytes, int | None]]:
    def ended(pid: int, _: int) -> tuple[bytes, int | None]:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return text, status

    return ended


@pytest.mark.parametrize(
    ("said", "status", "evidence"),
    [
        (b"upgraded\noverwritten\n", 0, "first entry of the ring"),
        (b"upgraded\n", None, "did not end in 15 s"),
        (b"upgraded\ncomplained\n", None, "the kernel complained when a buffer came back"),
        (b"upgraded\n", signal.SIGSEGV, "was ended by signal 11"),
    ],
    ids=["overwritten", "hangs", "complaint", "dies"],
)
def test_buffer_that_comes_back_to_a_ring(
    monkeypatch: pytest.MonkeyPatch, said: bytes, status: int | None, evidence: str
) -> None:
    """IOX-ERR-032: the ring's entry changes, or the kernel complains and keeps its lock.

    The program that provokes it is not run here.
    """
    monkeypatch.setattr(sys, "executable", shutil.which("sleep"))
    monkeypatch.setattr(upgraded, "_ended", _ending(said, status))
    with pytest.raises(ErratumPresent, match=f"IOX-ERR-032: .*{evidence}"):
        upgraded.group_that_becomes_a_ring()


def test_process_of_which_the_kernel_complains(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """IOX-ERR-032: a process that keeps a lock for good is not waited for."""
    monkeypatch.setattr(complaints, "FILE", tmp_path / "tainted")
    complaints.FILE.write_text("4096\n")
    reader, writer = os.pipe()
    child = subprocess.Popen(["sleep", "600"])
    late = threading.Timer(0.5, complaints.FILE.write_text, ["4224\n"])
    os.write(writer, b"upgraded\n")
    late.start()
    begun = time.monotonic()
    try:
        said = upgraded._ended(child.pid, reader)
        took = time.monotonic() - begun
    finally:
        late.join()
        child.kill()
        os.close(reader)
        os.close(writer)
    assert (b"upgraded\ncomplained\n", None) == said
    assert 0.5 <= took < upgraded.LIMIT_S
    assert child.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("said", "status", "error"),
    [
        (b"", None, AssertionError),  # nothing was provoked
        (b"", signal.SIGSEGV, AssertionError),
        (b"upgraded\nran\n", 256, AssertionError),
        (b"may not: Operation not permitted", 0, NotTried),
    ],
    ids=["hangs", "dies", "fails", "may-not"],
)
def test_ring_that_no_buffer_came_back_to(
    monkeypatch: pytest.MonkeyPatch, said: bytes, status: int | None, error: type[Exception]
) -> None:
    """IOX-ERR-032: without its control nothing is said of the kernel."""
    monkeypatch.setattr(sys, "executable", shutil.which("sleep"))
    monkeypatch.setattr(upgraded, "_ended", _ending(said, status))
    with pytest.raises(error):
        upgraded.group_that_becomes_a_ring()
    monkeypatch.setattr(upgraded, "_ended", _ending(b"upgraded\nran\n", 0))
    upgraded.group_that_becomes_a_ring()
