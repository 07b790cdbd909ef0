# SPDX-License-Identifier: MIT
"""python -m lab.kernels ...: the same as python -m lab kernels ..."""

from __future__ import annotations

import sys

from ..cli import main

if __name__ == "__main__":
    raise SystemExit(main(["kernels", *sys.argv[1:]]))
