# SPDX-License-Identifier: MIT
"""The tests; what several files of them share has its assertions explained as theirs are."""

import pytest

pytest.register_assert_rewrite(
    "tests.faces",
    "tests.kernel_gated.ways",
    "tests.smoke.modes",
    "tests.support",
    "tests.transports",
)
