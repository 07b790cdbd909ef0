# SPDX-License-Identifier: MIT
"""A request that is cancelled by its descriptor and its user data together (6.6)."""

from __future__ import annotations

import errno
import os
import select

from ioxide._errata.present import ErratumPresent, control, reproducer
from ioxide._errata.waiting import described
from ioxide._probe.rawring import Completion, RawRing
from ioxide._ring import lib

CANCEL_FD, CANCEL_USERDATA = 1 << 1, 1 << 4  # IORING_ASYNC_CANCEL_*, 5.19 and 6.6
POLL, OTHER, CANCEL = 1, 2, 3


def _cancelled(flags: int) -> dict[int, Completion]:
    """The completions, by user data, after one of two polls of a pipe is cancelled."""
    reader, writer = os.pipe()
    try:
        with RawRing() as ring:
            for user_data in (POLL, OTHER):
                ring.push(
                    lib.IOX_PROBE_OP_POLL_ADD,
                    fd=reader,
                    op_flags=select.POLLIN,
                    user_data=user_data,
                )
            assert ring.enter() == 2
            ring.push(
                lib.IOX_PROBE_OP_ASYNC_CANCEL,
                fd=reader,
                addr=POLL,
                op_flags=flags,
                user_data=CANCEL,
            )
            found = ring.collect(2, timeout_ms=500)
            # The control: both polls were there all the time, but for the cancelled one.
            os.write(writer, b"x")
            left = 3 - len(found)
            found += ring.collect(left)
            assert len(found) == 3, described(found)
            return {c.user_data: c for c in found}
    finally:
        os.close(reader)
        os.close(writer)


@reproducer("IOX-ERR-018")
def cancel_by_descriptor_and_user_data() -> None:
    """IOX-ERR-018: a cancel by descriptor and user data finds the request that has both.

    liburing's test/cancel-fd-userdata.c and https://github.com/axboe/liburing/issues/1611: the
    kernel kept both in one place, so that one overwrote the other.
    """
    found = _cancelled(CANCEL_FD | CANCEL_USERDATA)
    if found[CANCEL].res == -errno.EINVAL:  # 6.5 and older do not know the flag
        return
    if found[CANCEL].res == -errno.ENOENT:
        assert found[POLL].res == select.POLLIN, found[POLL].describe()
        raise ErratumPresent(
            "IOX-ERR-018", f"the cancel: {found[CANCEL].describe()}, and the poll was there"
        )
    assert (0, -errno.ECANCELED) == (found[CANCEL].res, found[POLL].res), found
    assert found[OTHER].res == select.POLLIN, found


@control()
def cancel_by_user_data() -> None:
    """The control of IOX-ERR-018: by its user data alone the same request is found."""
    found = _cancelled(0)
    assert (0, -errno.ECANCELED) == (found[CANCEL].res, found[POLL].res), found
    assert found[OTHER].res == select.POLLIN, found
