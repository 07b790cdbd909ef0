# SPDX-License-Identifier: MIT
"""What the lab knows and says, as plain data: no pytest, and nothing of the rooms above."""
