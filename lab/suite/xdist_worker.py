# SPDX-License-Identifier: MIT
"""A plugin for pytest-xdist's own workers in a guest, `-p lab.suite.xdist_worker`: `tmp_path` works
there.

`pytest --tx 'popen//python=... -m lab run ... -- python3'` starts such a worker. xdist takes it for
a process of this machine, and names a directory of this machine's for its temporary files. No
verdict of the lab comes of that; see docs/lab-guests.md.
"""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Make the directories above the one that the worker is to make for its temporary files."""
    if hasattr(config, "workerinput") and (named := config.option.basetemp):
        Path(named).parent.mkdir(parents=True, exist_ok=True)
