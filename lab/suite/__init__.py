# SPDX-License-Identifier: MIT
"""How a test becomes a verdict: the pytest plugin, the reconciliation, the kernel log's gate."""

from __future__ import annotations

from .identity import Expected, Identity, NoHost
from .verdicts import Conclusion, ExitCode, Tally, Verdict, conclude

__all__ = [
    "Conclusion",
    "ExitCode",
    "Expected",
    "Identity",
    "NoHost",
    "Tally",
    "Verdict",
    "conclude",
]
