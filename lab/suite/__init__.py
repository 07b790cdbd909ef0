# SPDX-License-Identifier: MIT
"""How a test becomes a verdict: the pytest plugin, the reconciliation, the kernel log's gate."""
