# SPDX-License-Identifier: MIT
"""What verdicts follow from: contract, errata, the kernel's complaints, what a test needs."""
