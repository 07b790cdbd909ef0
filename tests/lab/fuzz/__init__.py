# SPDX-License-Identifier: MIT
"""A machine that looks for holes in the lab: scripted guests, mutated by hypothesis.

`scenario` says what goes wrong and when, `corpus` what kernels say, `agent` is the guest, `trial`
puts it before the real host side and checks the invariants, `search` makes scenarios.
"""
