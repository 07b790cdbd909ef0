# SPDX-License-Identifier: MIT
"""Tests that run on the host and ask a guest about its state, see docs/testinfra.md."""
