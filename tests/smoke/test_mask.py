# SPDX-License-Identifier: MIT
"""IOXIDE_CAPS lets a kernel play an older one: it takes capabilities away, and never gives any."""

from __future__ import annotations

from typing import Any

import pytest

import ioxide
from ioxide import Capability, IncrementalConfig
from ioxide.__main__ import main
from ioxide._probe import mask
from tests.support import SMALL

VARIABLE = "IOXIDE_CAPS"


def test_masked_capability_is_not_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe says of what is taken away that it is masked, and of nothing else."""
    monkeypatch.setenv(VARIABLE, "-inc, -MIN_WAIT,-napi")

    report = ioxide.probe()

    expected = {Capability.INC, Capability.MIN_WAIT, Capability.NAPI}
    assert expected == {f.capability for f in report.findings if f.note == "masked"}
    assert [False] * 3 == [report[name].observed for name in sorted(expected)]
    assert report.observed("SINGLE_ISSUER")


@pytest.mark.parametrize("text", ["+inc", "-inc,+napi", "inc", "-incc", "-", "-inc,", "-inc -napi"])
def test_mask_that_cannot_be_meant_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """A word that would give a capability, or names none, ends the command with 2 and the word."""
    monkeypatch.setenv(VARIABLE, text)

    status = main(["probe"])

    out, err = capsys.readouterr()
    assert 2 == status
    assert "" == out
    assert err.startswith(f"ioxide: {VARIABLE}: ")
    assert 1 == len(err.splitlines())


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("-inc", {"incremental": IncrementalConfig(max_connections=8)}),
        ("-bundle", {"recv_bundle": True}),
        ("-send_zc", {"zero_copy_send": True}),
        ("-min_wait", {"min_wait_us": 100}),
        ("-napi", {"napi_busy_poll_us": 50}),
        ("-multishot_recv", {}),
    ],
)
def test_reactor_refuses_what_is_masked(
    monkeypatch: pytest.MonkeyPatch, text: str, changes: dict[str, Any]
) -> None:
    """What needs a masked capability is refused at the start, and the sentence names the mask."""
    monkeypatch.setenv(VARIABLE, text)

    with pytest.raises(ioxide.UnsupportedError) as caught:
        ioxide.Driver(SMALL.replace(**changes))

    assert f"{VARIABLE} takes away" in str(caught.value)
    assert text[1:].upper() in str(caught.value)
    assert all(name in str(caught.value) for name in changes)


def test_rest_of_the_reactor_goes_on_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask costs nothing but what it names; the registered descriptor is simply not used."""
    monkeypatch.setenv(VARIABLE, "-inc,-bundle,-napi,-min_wait,-registered_ring_fd")

    driver = ioxide.Driver(SMALL)
    registered = driver.ring_fd_registered
    driver.close()

    assert registered is False


def test_empty_mask_masks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable is no mask."""
    monkeypatch.setenv(VARIABLE, "  ")

    assert frozenset() == mask.active()
