# SPDX-License-Identifier: MIT
"""Issue #102: what cannot work is refused before anything listens, by the setting's name.

The constructor judges values (tests/smoke/test_config.py); start() judges what this kernel has, by
feature bits and by asking: IOU_PBUF_RING_INC and IORING_REGISTER_NAPI fail with EINVAL on kernels
that do not know them, which would otherwise happen at the first connection.
"""

from __future__ import annotations

import os

import pytest

import ioxide
from tests.support import SMALL, echo, probed

pytestmark = [pytest.mark.kernel_gated, pytest.mark.issue(102)]


LACKING = [
    pytest.param("INC", {"incremental": ioxide.IncrementalConfig()}, "incremental", "6.12"),
    pytest.param("BUNDLE", {"recv_bundle": True}, "recv_bundle", "6.10"),
    pytest.param("NAPI", {"napi_busy_poll_us": 50}, "napi_busy_poll_us=50", "6.9"),
    pytest.param("MIN_WAIT", {"min_wait_us": 100}, "min_wait_us=100", "6.12"),
]


@pytest.fixture(scope="module")
def report() -> ioxide.ProbeReport:
    """What this kernel has."""
    return probed()


@pytest.mark.parametrize(("capability", "changes", "setting", "since"), LACKING)
def test_a_knob_this_kernel_lacks_is_refused_at_start(
    report: ioxide.ProbeReport,
    capability: str,
    changes: dict[str, object],
    setting: str,
    since: str,
) -> None:
    """Where the kernel lacks it, starting raises and names setting and kernel; else it starts."""
    accepted = report[ioxide.Capability(capability)].accepted
    server = ioxide.Server(echo, SMALL.replace(**changes))
    if accepted:
        server.start()
        server.stop()
        return
    with pytest.raises(ioxide.UnsupportedError) as caught:
        server.start()
    for word in (setting, since, os.uname().release):
        assert word in str(caught.value)
