# SPDX-License-Identifier: MIT
"""How a measurement can fail to be one."""

from __future__ import annotations


class Void(Exception):
    """The run proved nothing; the message says why.  Status 3."""
