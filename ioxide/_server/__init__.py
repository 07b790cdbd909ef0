# SPDX-License-Identifier: MIT
"""Reactors: threads that listen, and run handlers."""
