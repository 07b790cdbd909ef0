# SPDX-License-Identifier: MIT
"""Other people's tests and programs on our loop: ``python -m tests.conformance``."""
