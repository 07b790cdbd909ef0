# SPDX-License-Identifier: MIT
# Made by cffi from the .cdef files, which are the declarations; mypy cannot read those.
from typing import Any

ffi: Any
lib: Any
