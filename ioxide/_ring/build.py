# SPDX-License-Identifier: MIT
"""Builds ``ioxide._ring._native``: one shared object with two modules.

One is cffi's (``ffi``, ``lib``), for the probe and for what is asked before a ring is opened.  The
other one, ``ioxide._ring._core`` (module.c), has CPython types for all that happens on a ring.
They need the full C API, hence ``py_limited_api=False``.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent if "__file__" in globals() else Path("ioxide/_ring")

# Each C file that cffi may call has a .cdef with its declarations, so that a file and what Python
# sees of it stand next to each other.
CDEFS = ("plain/ring.cdef", "plain/group.cdef", "probe.cdef")
SOURCES = (
    "plain/failing.c",
    "plain/pages.c",
    "plain/clock.c",
    "plain/memory.c",
    "plain/group.c",
    "plain/record.c",
    "plain/ring.c",
    "plain/states.c",
    "settings.c",
    "errors.c",
    "owner.c",
    "homes.c",
    "modes.c",
    "mailbox.c",
    "wake.c",
    "faults.c",
    "finished.c",
    "waiter.c",
    "submit.c",
    "table.c",
    "retry.c",
    "clocks.c",
    "sockets.c",
    "buffers.c",
    "slice.c",
    "receive.c",
    "send.c",
    "life.c",
    "reserve.c",
    "adopt.c",
    "listeners.c",
    "foreign.c",
    "face.c",
    "tick.c",
    "quiesce.c",
    "dispatch.c",
    "handles.c",
    "scheduling.c",
    "turns.c",
    "close.c",
    "awaitable.c",
    "connection.c",
    "counters.c",
    "open.c",
    "worker.c",
    "driver.c",
    "module.c",
    "probe.c",
)
HEADERS = ("ring.h", "group.h", "probe.h")
# What is in `plain` knows no Python; tests/lab/test_core_rooms.py holds that.
FOLDERS = ("", "plain")

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

# The n-th allocation of a system call fails where a test asks for it (plain/failing.h). `make
# build` builds that in; a wheel has nothing of it.
faults = ["-DIOX_FAULTS"] if os.environ.get("IOXIDE_FAULTS") else []

# Functions of one file are inlined into others: 190 instructions a request less, of 8,040 (make
# gate). GCC alone, because clang needs a linker for it that is not always there. IOXIDE_LTO=0 is
# for a build that is linked again and again (python -m tests.mutants).
compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or ""
inlines = not sanitize and os.environ.get("IOXIDE_LTO") != "0" and "clang" not in compiler
lto = ["-flto"] if inlines else []

ffi = FFI()
for name in CDEFS:
    ffi.cdef((HERE / name).read_text())
ffi.set_source(
    "ioxide._ring._native",
    "".join(f'#include "{name}"\n' for name in HEADERS),
    sources=[os.path.relpath(HERE / name) for name in SOURCES],
    depends=sorted(os.path.relpath(p) for p in HERE.rglob("*.h")),
    include_dirs=[os.path.relpath(HERE / folder) for folder in FOLDERS],
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
        *faults,
        *lto,
        *sanitize,
    ],
    extra_link_args=[*lto, *(["-O2", "-flto-partition=one"] if lto else []), *sanitize[:-1]],
    py_limited_api=False,
)

if __name__ == "__main__":
    ffi.compile(verbose="-v" in sys.argv)
