# SPDX-License-Identifier: MIT
"""The oracle: the same scenario on asyncio's own loop and on ours, and what differs.

`scenario` has the vocabulary, `interpreter` and `processes` run it on whichever loop they are
given, `pair` has a process for each loop, `known` lists the differences that there are.
"""
