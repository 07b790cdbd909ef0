# SPDX-License-Identifier: MIT
"""Runs a module in a fake guest: `python init.py CMDLINE-FILE MODULE ARGUMENTS...`.

The one thing a process on the host cannot have is a kernel command line of its own, so that is
replaced here, from outside; the suite has no switch for it.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    cmdline, module, *arguments = sys.argv[1:]
    sys.path[0] = str(Path.cwd())
    from lab.remote import identity

    identity.CMDLINE = Path(cmdline)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
