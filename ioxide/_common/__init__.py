# SPDX-License-Identifier: MIT
"""What every room may use: the configuration, counters, modes and the flight recorder."""
