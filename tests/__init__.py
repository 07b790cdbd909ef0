# SPDX-License-Identifier: MIT
"""The tests; what several files of them share has its assertions explained as theirs are."""

import sys

# The programs that tests start import this package too: pytest, which they have no use for, would
# take them as long as ioxide itself.
if "pytest" in sys.modules:
    import pytest

    pytest.register_assert_rewrite(
        "tests.faces",
        "tests.kernel_gated.ways",
        "tests.smoke.modes",
        "tests.support",
        "tests.transports",
    )
