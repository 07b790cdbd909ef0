# SPDX-License-Identifier: MIT
"""Boots released Linux kernels in QEMU and gives one verdict per test.

PYTEST_DONT_REWRITE: where the lab is installed, its own command imports this before pytest, which
warns of every plugin's package of which that is true and which does not say so.
"""
