# SPDX-License-Identifier: MIT
"""A thread that ends after it had a ring whose requests were run by kernel workers."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from ioxide._errata.present import ErratumPresent, reproducer
from ioxide._errata.waiting import OP_READ
from ioxide._probe.rawring import RawRing
from ioxide._ring import lib

SQE_ASYNC = 1 << 4  # IOSQE_ASYNC, 5.6
IDLE_S = 5.0  # after which an idle worker ends by itself, io_uring/io-wq.c
LIMIT_S = 20.0


def _leaving(*, worker: bool) -> float:
    """How long a thread takes to be gone once its Python code is done, in seconds; its ring had a
    read that a worker ran, or a request without one."""
    workers: list[str] = []

    def work() -> None:
        fd = os.memfd_create("erratum", os.MFD_CLOEXEC)
        try:
            os.write(fd, b"x" * 64)
            with RawRing() as ring:
                into = bytearray(64)
                if worker:
                    ring.push(OP_READ, fd=fd, addr=ring.keep(into), len=64, flags=SQE_ASYNC)
                else:
                    ring.push(lib.IOX_PROBE_OP_NOP)
                assert [64 if worker else 0] == [c.res for c in ring.collect(1)]
                # A worker is named after the thread that it works for.
                mine = f"iou-wrk-{threading.get_native_id()}"
                for task in Path("/proc/self/task").iterdir():
                    with suppress(OSError):  # others may end meanwhile
                        if (task / "comm").read_text().strip() == mine:
                            workers.append(task.name)
        finally:
            os.close(fd)

    thread = threading.Thread(target=work)
    thread.start()
    number = thread.native_id
    thread.join()
    begun = time.monotonic()
    # Python's join returns before the kernel's part of the thread's end.
    while Path(f"/proc/self/task/{number}").exists() and time.monotonic() < begun + LIMIT_S:
        time.sleep(0.005)
    # The control: a worker was there if one was asked for.
    assert bool(workers) == worker, workers
    return time.monotonic() - begun


@reproducer("IOX-ERR-029")
def thread_with_an_idle_worker() -> None:
    """IOX-ERR-029: a thread whose ring is closed ends at once, whatever worker it had.

    liburing's test/io-wq-exit.c, 10208693: the thread waited for its worker, and that for its idle
    time, which is 5 s.
    """
    took = _leaving(worker=True)
    if took > IDLE_S / 2:
        # The control: without a worker it takes no time.
        usual = _leaving(worker=False)
        assert usual < IDLE_S / 2, f"a thread without a worker took {usual:.1f} s to end"
        raise ErratumPresent(
            "IOX-ERR-029", f"the thread took {took:.1f} s to end, without a worker {usual:.3f} s"
        )
