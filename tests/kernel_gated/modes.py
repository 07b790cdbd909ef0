# SPDX-License-Identifier: MIT
"""The ways to receive and to send, as test parameters that say what the kernel must have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

import ioxide

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

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


def brief(cases: Sequence[ParameterSet], *also: str) -> list[ParameterSet]:
    """`cases`, of which a short run takes only the first, and those of these ids: the rest is slow.

    For tests that take seconds of an emulated processor, and whose subject hardly meets what the
    cases differ in; what does meet it is tried with every case in quicker tests.
    """
    taken = {cases[0].id, *also}
    assert taken <= {case.id for case in cases}
    return [
        case
        if case.id in taken
        else pytest.param(*case.values, id=case.id, marks=[*case.marks, pytest.mark.slow])
        for case in cases
    ]
