# SPDX-License-Identifier: MIT
"""What is done to find out whether a ring can do what is asked of it, and on which ring."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

import ioxide
from ioxide import IncrementalConfig, opening
from ioxide._ring import lib
from tests.support import SMALL


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
    served = False
    with contextlib.suppress(ioxide.UnsupportedError):  # an older kernel, which was asked as well
        ioxide.Driver(SMALL.replace(**changes)).close()
        served = True
    names = [name for name, at in recorder.calls if at == 0]
    if not changes:
        assert [("open", 0)] == recorder.calls
        return
    assert ["open", "info", *([asked] if asked else []), "close"] == names
    assert [("open", 1)] * served == recorder.calls[len(names) :]
