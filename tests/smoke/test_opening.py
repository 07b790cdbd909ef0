# SPDX-License-Identifier: MIT
"""What is done to find out whether a ring can do what is asked of it, and on which ring."""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import Any

import pytest

import ioxide
from ioxide import IncrementalConfig
from ioxide._driver import opening
from ioxide._driver.connection import Connection
from ioxide._ring import _core, lib
from tests.support import SMALL, open_fds


class _Recorder:
    """cffi's library, which writes down what is done to which ring, in the order of opening."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self._rings: list[Any] = []
        self.calls: list[tuple[str, int]] = []

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        if not name.startswith("iox_ring_"):
            return value

        def call(*args: Any) -> Any:
            result = value(*args)
            if name == "iox_ring_open":
                self._rings.append(result)
                self.calls.append(("open", len(self._rings) - 1))
            else:
                # The last one first: an address may be given out again.
                at = max(i for i, ring in enumerate(self._rings) if ring == args[0])
                self.calls.append((name.removeprefix("iox_ring_"), at))
            return result

        return call


class _Core:
    """The module `_core`, which writes down that a driver opens its ring."""

    SETTINGS = _core.SETTINGS

    def __init__(self, calls: list[tuple[str, int]]) -> None:
        self._calls = calls

    def Driver(self, *args: Any, **settings: Any) -> _core.Driver:
        self._calls.append(("serve", 0))
        return _core.Driver(*args, **settings)


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({}, None),
        ({"zero_copy_send": True}, "knows"),
        ({"incremental": IncrementalConfig(max_connections=8)}, "incremental"),
        ({"recv_bundle": True}, None),
        ({"min_wait_us": 100}, None),
    ],
)
def test_nothing_is_tried_on_the_ring_that_serves(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], asked: str | None
) -> None:
    """Asking is done on a ring that is closed before the real one opens; defaults ask nothing."""
    recorder = _Recorder(lib)
    monkeypatch.setattr(opening, "lib", recorder)
    monkeypatch.setattr(opening, "_core", _Core(recorder.calls))
    served = False
    with contextlib.suppress(ioxide.UnsupportedError):  # an older kernel, which was asked as well
        ioxide.Driver(SMALL.replace(**changes)).close()
        served = True
    expected = ["open", "info", *([asked] if asked else []), "close"] if changes else []
    assert [(name, 0) for name in (*expected, *["serve"] * served)] == recorder.calls


SETTINGS = opening._settings(SMALL, frozenset())


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"pool_max": -1}, OverflowError, "pool_max=-1: must be an integer from 0 to 4294967295"),
        ({"pool_max": 2**32}, OverflowError, "pool_max=4294967296: must be an integer from 0 to"),
        ({"write_limit": 2**64}, OverflowError, "from 0 to 18446744073709551615"),
        ({"write_limit": 1.5}, TypeError, r"write_limit=1\.5: must be an integer"),
        ({"write_limit": True}, TypeError, "write_limit=True: must be an integer"),
        ({"recv_bundle": 1}, TypeError, "recv_bundle=1: must be True or False"),
        ({"recv_bundel": False}, TypeError, r"Driver\(\) has no setting recv_bundel"),
    ],
    ids=["negative", "33 bits", "65 bits", "float", "bool", "int for a bool", "misspelt"],
)
def test_the_core_refuses_what_it_is_not_told_right(
    changes: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    """Each setting crosses by its name, with its type, and no number is cut off."""
    fds = open_fds()
    with pytest.raises(error, match=sentence):
        _core.Driver(Connection, **{**SETTINGS, **changes})
    assert fds == open_fds()


@pytest.mark.parametrize("name", _core.SETTINGS)
def test_the_core_needs_every_setting(name: str) -> None:
    left = {key: value for key, value in SETTINGS.items() if key != name}
    with pytest.raises(TypeError, match=rf"Driver\(\) needs the setting {name}$"):
        _core.Driver(Connection, **left)


def test_the_core_is_a_module_that_import_finds() -> None:
    """It is the one of the shared object, has a specification, and is not made twice."""
    module = importlib.import_module("ioxide._ring._core")
    assert _core is module
    assert module.__spec__ is not None
    assert "ioxide._ring._core" == module.__spec__.name
    importlib.reload(importlib.import_module("ioxide._ring"))
    assert module is sys.modules["ioxide._ring._core"]
