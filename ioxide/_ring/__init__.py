# SPDX-License-Identifier: MIT
"""The native part: ``ffi`` and ``lib`` for set-up and control, ``_core`` for the hot path."""

from __future__ import annotations

import sys

try:
    from ioxide._ring import _native
except ImportError as error:  # the shared object is not there, or is another Python's
    raise ImportError(
        f"ioxide's native part is not built for this Python ({sys.version.split()[0]}), or cannot "
        f"be loaded here: {error}. Run `make build`, or install the package with pip."
    ) from error

if _native.lib.iox_core_module() != 0:
    raise ImportError("ioxide's native types could not be installed; the reason is printed above")

if "ioxide._ring._core" not in sys.modules:
    raise ImportError(
        "ioxide runs in the main interpreter of a process only, and this is another one: "
        "import it there, or start a process of its own"
    )

from ioxide._ring import _core  # a module that the call above has put into sys.modules

ffi, lib = _native.ffi, _native.lib

__all__ = ["_core", "ffi", "lib"]
