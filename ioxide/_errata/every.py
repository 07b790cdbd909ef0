# SPDX-License-Identifier: MIT
"""Every reproducer; to import this module is to know them all."""

from __future__ import annotations

from ioxide._errata import (
    accept,
    buf_more,
    bundle,
    cancelling,
    connecting,
    failed_read,
    idle,
    leaving,
    min_wait,
    nop,
    nothing,
    overwritten,
    polls,
    recvmsg,
    resizing,
    sending,
    short_read,
    timens,
    unix,
    upgraded,
    urgent,
)
from ioxide._errata.present import REPRODUCERS

__all__ = ["MODULES", "REPRODUCERS"]

MODULES = (
    accept,
    buf_more,
    bundle,
    cancelling,
    connecting,
    failed_read,
    idle,
    leaving,
    min_wait,
    nop,
    nothing,
    overwritten,
    polls,
    recvmsg,
    resizing,
    sending,
    short_read,
    timens,
    unix,
    upgraded,
    urgent,
)
