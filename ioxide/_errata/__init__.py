# SPDX-License-Identifier: MIT
"""Reproducers of the errata: each shows one defect of a kernel, and that it was provoked."""
