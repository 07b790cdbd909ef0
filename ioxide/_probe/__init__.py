# SPDX-License-Identifier: MIT
"""How ``ioxide.probe()`` works; the public names are in its ``capabilities``."""
