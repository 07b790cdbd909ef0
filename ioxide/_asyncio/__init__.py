# SPDX-License-Identifier: MIT
"""asyncio's face of a ring: a loop, its transports, and the programs that run on it."""
