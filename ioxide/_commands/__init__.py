# SPDX-License-Identifier: MIT
"""The commands of ``python -m ioxide``, a module each."""
