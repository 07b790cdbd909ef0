# SPDX-License-Identifier: MIT
"""Guests that are no guests, and guests that lie: what the suite is tested against without QEMU."""

from __future__ import annotations
