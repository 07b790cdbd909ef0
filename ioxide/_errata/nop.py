# SPDX-License-Identifier: MIT
"""A NOP with a file (IORING_NOP_FILE, 6.13)."""

from __future__ import annotations

import os

from ioxide._errata.present import ErratumPresent, control, reproducer
from ioxide._probe.rawring import RawRing
from ioxide._ring import lib

NOP_FILE = 1 << 1
SQE_FIXED_FILE = 1 << 0


def _still_open(flags: int) -> tuple[bool, str]:
    """Whether a pipe can be written to whose reading end was closed after a NOP had been given it,
    and how the NOP ended."""
    reader, writer = os.pipe()
    try:
        with RawRing() as ring:
            ring.push(lib.IOX_PROBE_OP_NOP, fd=reader, op_flags=NOP_FILE, flags=flags)
            found = ring.collect(1)
            assert len(found) == 1, "the NOP never ended"
        os.close(reader)
        reader = -1
        try:
            os.write(writer, b"x")
        except BrokenPipeError:
            return False, found[0].describe()
        return True, found[0].describe()
    finally:
        os.close(writer)
        if reader >= 0:
            os.close(reader)


@reproducer("IOX-ERR-030", harm="one end of a pipe stays open until the machine is restarted")
def file_of_a_nop() -> None:
    """IOX-ERR-030: a NOP gives back the file that it was given.

    liburing's test/nop-fixed-file-leak.c and https://github.com/axboe/liburing/issues/1611: with
    IOSQE_FIXED_FILE and without IORING_NOP_FIXED_FILE a plain file was taken, and not given back.
    """
    held, said = _still_open(SQE_FIXED_FILE)
    if held:
        raise ErratumPresent(
            "IOX-ERR-030", f"{said}; the pipe has a reader after its only descriptor was closed"
        )


@control()
def file_of_a_plain_nop() -> None:
    """The control of IOX-ERR-030: without the flag the file is given back."""
    held, said = _still_open(0)
    assert not held, said
