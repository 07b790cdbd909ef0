# SPDX-License-Identifier: MIT
"""A connect that nobody answers, on a socket that is shut down meanwhile."""

from __future__ import annotations

import pytest

from ioxide._errata import connecting

pytestmark = pytest.mark.kernel_gated


def test_connect_that_is_shut_down() -> None:
    """IOX-ERR-028: a connect ends with ECONNRESET when its socket is shut down, not with a
    timeout."""
    connecting.connect_that_is_shut_down()
