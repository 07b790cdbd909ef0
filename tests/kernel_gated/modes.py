# SPDX-License-Identifier: MIT
"""The ways to receive and to send, as test parameters that say what the kernel must have."""

from __future__ import annotations

from typing import Any

import pytest

import ioxide

SMALL_INCREMENTAL = ioxide.IncrementalConfig(
    max_connections=64, recv_slots=4, recv_buffer_size=1024
)

MODES = [
    pytest.param({}, id="shared"),
    pytest.param({"recv_bundle": True}, id="bundle", marks=pytest.mark.needs("BUNDLE")),
    pytest.param(
        {"incremental": SMALL_INCREMENTAL}, id="incremental", marks=pytest.mark.needs("INC")
    ),
]

SENDS = [
    pytest.param({}, id="copy"),
    pytest.param({"zero_copy_send": True}, id="zc", marks=pytest.mark.needs("SEND_ZC")),
]

OVERFLOWS = [
    pytest.param({}, id="grow"),
    pytest.param({"write_overflow": ioxide.WriteOverflow.SEGMENTED}, id="segmented"),
]

Changes = dict[str, Any]
