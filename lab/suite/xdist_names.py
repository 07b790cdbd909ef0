# SPDX-License-Identifier: MIT
"""What tests know of pytest-xdist, for guests: there the host does what it does, and it is not
loaded. All is as xdist (3.8) has it in a run without workers."""

from __future__ import annotations

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """A marker that nobody registered is an error under --strict-markers."""
    config.addinivalue_line("markers", "xdist_group(name): of pytest-xdist")


@pytest.fixture(scope="session")
def worker_id() -> str:
    """As in the process that nobody started for a part of the tests."""
    return "master"


@pytest.fixture(scope="session")
def testrun_uid() -> str:
    """A name of this session's own."""
    return os.urandom(16).hex()
