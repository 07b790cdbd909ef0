# SPDX-License-Identifier: MIT
"""The native part: ``ffi`` and ``lib`` for the probe, ``_core`` for the reactor.

Both are in one shared object, so that there is one copy of the C files that they share, and one
product whose hash the lab proves.  Python's import system finds `_native` by the file's name;
`_core` is loaded from the same file by its own initialisation function (PEP 489).
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ExtensionFileLoader

try:
    from ioxide._ring import _native
except ImportError as error:  # the shared object is not there, or is another Python's
    raise ImportError(
        f"ioxide's native part is not built for this Python ({sys.version.split()[0]}), or cannot "
        f"be loaded here: {error}. Run `make build`, or install the package with pip."
    ) from error


def _load_core() -> None:
    name = f"{__name__}._core"
    loader = ExtensionFileLoader(name, _native.__file__)
    spec = importlib.util.spec_from_file_location(name, _native.__file__, loader=loader)
    assert spec is not None  # as a loader is given
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


if f"{__name__}._core" not in sys.modules:  # not again when this package is reloaded
    _load_core()

from ioxide._ring import _core  # noqa: E402

ffi, lib = _native.ffi, _native.lib

__all__ = ["_core", "ffi", "lib"]
