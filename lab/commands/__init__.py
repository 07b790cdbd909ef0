# SPDX-License-Identifier: MIT
"""The commands of `lab` that are not about verdicts: kernels, run, shell, probe, plan, check,
report.

Each module has `add_parser(commands)`, which sets `handler` to what runs the command and returns
its exit code.
"""

from __future__ import annotations

from typing import Any

from . import check, init, kernels, plan, probe, report, run, shell

_MODULES = (init, kernels, run, shell, probe, plan, check, report)


def add_parsers(commands: Any) -> None:
    """Add all of them to the subparsers of `lab`."""
    for module in _MODULES:
        module.add_parser(commands)
