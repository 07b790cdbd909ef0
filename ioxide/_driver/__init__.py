# SPDX-License-Identifier: MIT
"""A ring and its connections, as one thread owns them."""
