# SPDX-License-Identifier: MIT
"""Capabilities that are there and broken: which errata, on which releases, measured how."""

from __future__ import annotations

from .catalogue import Catalogue, Erratum, read

__all__ = ["Catalogue", "Erratum", "read"]
