# SPDX-License-Identifier: MIT
"""Python in a guest: the tree that is pushed there, and the proof that it arrived."""
