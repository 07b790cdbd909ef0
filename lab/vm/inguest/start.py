# SPDX-License-Identifier: MIT
"""Starts the agent: Python runs this file, and finds the package that it is in beside it."""

import sys

sys.path.append(__file__.rpartition("/")[0].rpartition("/")[0])
__import__("inguest.agent", fromlist=["main"]).main()
