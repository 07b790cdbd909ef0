# SPDX-License-Identifier: MIT
"""Capabilities that are there and broken: which errata, on which releases, measured how."""
