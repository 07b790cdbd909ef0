# SPDX-License-Identifier: MIT
"""The two processes that the oracle's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.differential.pair import Pair, pair


@pytest.fixture(scope="package")
def both() -> Iterator[Pair]:
    """A process for each loop, for as long as there are scenarios; later tests have no children."""
    with pair() as made:
        yield made
