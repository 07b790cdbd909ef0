# SPDX-License-Identifier: MIT
"""Bugs put back on purpose: each must turn the test that guards against it red.

``python -m tests.mutants`` copies the tree, puts one bug back at a time and runs the tests named
for it.  A test that stays green under its bug proves nothing, and so does one that fails for
another reason, or a bug that breaks everything; each of these ends the run with status 1.
"""
