# SPDX-License-Identifier: MIT
"""Builds ``ioxide._ring._native``: one shared object with a cffi face and a CPython face.

The cffi face (``ffi``, ``lib``) serves set-up, the probe and control.  The per-event objects are
CPython types compiled into the same object; ``lib.iox_core_module()`` installs them as the module
``ioxide._ring._core``.  That needs the full C API, hence ``py_limited_api=False``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent if "__file__" in globals() else Path("ioxide/_ring")

# Each C file that cffi may call has a .cdef with its declarations, so that a file and what Python
# sees of it stand next to each other.
CDEFS = ("core.cdef", "ring.cdef", "group.cdef", "probe.cdef")
SOURCES = (
    "core.c",
    "ring.c",
    "group.c",
    "memory.c",
    "pages.c",
    "driver.c",
    "dispatch.c",
    "listeners.c",
    "counters.c",
    "buffers.c",
    "drain.c",
    "close.c",
    "foreign.c",
    "tick.c",
    "adopt.c",
    "connection.c",
    "life.c",
    "receive.c",
    "send.c",
    "face.c",
    "slice.c",
    "awaitable.c",
    "waiter.c",
    "worker.c",
    "probe.c",
)
HEADERS = ("core.h", "ring.h", "group.h", "probe.h")

# `make sanitize`: AddressSanitizer and UndefinedBehaviorSanitizer; see pages.c for what they miss.
SANITIZE = [
    "-g",
    "-O1",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize=object-size",  # ASan sees the same, and names the block
    "-DIOX_SANITIZE",
]
sanitize = SANITIZE if os.environ.get("IOXIDE_SANITIZE") else []

ffi = FFI()
for name in CDEFS:
    ffi.cdef((HERE / name).read_text())
ffi.set_source(
    "ioxide._ring._native",
    "".join(f'#include "{name}"\n' for name in HEADERS),
    sources=[os.path.relpath(HERE / name) for name in SOURCES],
    depends=sorted(os.path.relpath(p) for p in HERE.glob("*.h")),
    include_dirs=[os.path.relpath(HERE)],
    libraries=["uring"],
    extra_compile_args=[
        "-std=gnu11",
        "-O2",
        "-fno-strict-aliasing",
        # Calls between our files go straight, not through the procedure linkage table.
        "-fvisibility=hidden",
        # Calls of Python's C API go through the global offset table at once: one jump less each.
        "-fno-plt",
        "-Wall",
        "-Wextra",
        "-Werror=implicit-function-declaration",
        "-Wno-unused-parameter",
        "-Wno-missing-field-initializers",
        "-Wno-cast-function-type",
        *sanitize,
    ],
    extra_link_args=sanitize[:-1],
    py_limited_api=False,
)

if __name__ == "__main__":
    ffi.compile(verbose="-v" in sys.argv)
