# SPDX-License-Identifier: MIT
"""What a kernel spoils: the experiments of a start, what they cost, and what comes of them.

Each outcome is forged here, since this machine's kernel has only one of the two.
"""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

import ioxide
from ioxide._driver import soundness
from ioxide._driver.driver import Driver
from ioxide._probe.rawring import Completion
from ioxide._ring._native import ffi, lib
from tests.support import SMALL

BUNDLE = SMALL.replace(recv_bundle=True)
INCREMENTAL = SMALL.replace(incremental=ioxide.IncrementalConfig(max_connections=8))


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundness, "_results", {})


def _forge(monkeypatch: pytest.MonkeyPatch, name: str, answer: Callable[[], str]) -> None:
    monkeypatch.setitem(soundness.EXPERIMENTS, name, answer)


@pytest.mark.parametrize(
    ("config", "name", "setting", "erratum"),
    [
        (BUNDLE, "recv_bundle", "recv_bundle=True", "IOX-ERR-005"),
        (INCREMENTAL, "incremental", "incremental", "IOX-ERR-006"),
    ],
)
def test_spoiled_way_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
    config: ioxide.ServerConfig,
    name: str,
    setting: str,
    erratum: str,
) -> None:
    """The sentence has the setting, the erratum, what was seen, and the way out."""
    _forge(monkeypatch, name, lambda: "res=700 bid=2: 1976 bytes, out of order")
    sentence = soundness.complaint(config)
    assert sentence.startswith(setting)
    for part in (erratum, "res=700 bid=2", "Leave it out"):
        assert part in sentence


def test_sound_way_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing wrong is no complaint."""
    for name in soundness.EXPERIMENTS:
        _forge(monkeypatch, name, str)
    assert ("", "") == (soundness.complaint(BUNDLE), soundness.complaint(INCREMENTAL))


def test_what_cannot_be_tried_is_refused_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a loopback interface absence is not shown: refused, and asked anew the next time."""

    def down() -> str:
        raise OSError(99, "Cannot assign requested address")

    _forge(monkeypatch, "recv_bundle", down)
    assert "loopback" in soundness.complaint(BUNDLE)
    _forge(monkeypatch, "recv_bundle", str)
    assert soundness.complaint(BUNDLE) == ""


@contextmanager
def _signals(every_us: int) -> Iterator[None]:
    """SIGALRM for this process all the time, `every_us` microseconds apart."""
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, every_us / 1e6, every_us / 1e6)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _repeated(experiment: Callable[[], str], times: int) -> None:
    for _ in range(times):
        assert "" == experiment()


def test_signals_spoil_no_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receive at an urgent mark fails while a signal is pending; the kernel is right even so.

    The control is the experiment on the thread that the signals go to.
    """
    monkeypatch.setattr(soundness, "_ATTEMPTS", 1)
    with _signals(every_us=100):
        with pytest.raises(soundness._SilenceError, match="bytes never came"):
            _repeated(soundness._bytes_in_order, 100)
        _repeated(lambda: soundness._tried(soundness._bytes_in_order), 12)


def test_silence_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that did not come once may have a harmless reason; thrice is the kernel's fault."""
    silences = ["700 bytes never came"] * 2

    def answer() -> str:
        if silences:
            raise soundness._SilenceError(silences.pop())
        return ""

    _forge(monkeypatch, "recv_bundle", answer)
    assert "" == soundness.complaint(BUNDLE)
    silences += ["700 bytes never came"] * 3
    monkeypatch.setattr(soundness, "_results", {})
    assert "700 bytes never came, in 3 attempts" in soundness.complaint(BUNDLE)


def test_no_thread_for_an_experiment_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start fails by that, and the next one asks."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OSError, match="thread for an experiment") as raised:
            soundness.complaint(BUNDLE)
    assert raised.value.errno == errno.EAGAIN
    _forge(monkeypatch, "recv_bundle", str)
    assert soundness.complaint(BUNDLE) == ""


def test_experiment_is_made_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two starts ask the kernel once."""
    asked: list[str] = []

    def answer() -> str:
        asked.append("once")
        return ""

    _forge(monkeypatch, "recv_bundle", answer)
    for _ in range(2):
        assert soundness.complaint(BUNDLE) == ""
    assert ["once"] == asked


def test_defaults_pay_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that asks for none of the ways makes no experiment."""

    def never() -> str:
        raise AssertionError("an experiment was made")

    for name in soundness.EXPERIMENTS:
        _forge(monkeypatch, name, never)
    with closing(Driver(SMALL)) as driver:
        assert not driver.closed


def test_bytes_out_of_order_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel whose bytes are not where they should be is told from one that is right."""
    taken = soundness._taken

    def swapped(group: object, completion: Completion) -> bytes | None:
        right = taken(group, completion)
        return right[::-1] if right is not None and len(right) > 1 else right

    monkeypatch.setattr(soundness, "_taken", swapped)
    assert "out of order" in soundness._bytes_in_order()
    monkeypatch.setattr(soundness, "_taken", lambda *_: None)
    assert "kernel's hands" in soundness._bytes_in_order()
    monkeypatch.setattr(soundness, "_taken", taken)
    assert soundness._bytes_in_order() == ""


@contextmanager
def _group(*, bundle: bool) -> Iterator[object]:
    group = lib.iox_group_new(8, 64, False, bundle)
    assert group != ffi.NULL
    try:
        yield group
    finally:
        lib.iox_group_unref(group)


def _runs(group: object, bid: int, length: int) -> list[tuple[int, int]]:
    offset, following = ffi.new("uint32_t *"), ffi.new("uint16_t *")
    found = []
    while length:
        step = lib.iox_group_take(group, bid, length, False, offset, following)
        found.append((bid, step))
        if not step:
            break
        length, bid = length - step, following[0]
    return found


def test_bundle_is_as_long_as_the_ring_says() -> None:
    """Where the kernel has cut a buffer short (IOX-ERR-005), the bytes go on in the next one."""
    with _group(bundle=True) as group:
        group.ring[1].len = 20  # type: ignore[attr-defined]
        assert [(0, 64), (1, 20), (2, 10)] == _runs(group, 0, 94)
        group.ring[3].len = 65  # type: ignore[attr-defined]
        assert [(3, 0)] == _runs(group, 3, 64)
        group.ring[4].len = 0  # type: ignore[attr-defined]
        assert [(4, 0)] == _runs(group, 4, 64)


def test_ring_of_bundles_has_twice_the_room() -> None:
    """What a completion needs of the ring is not written over by buffers provided meanwhile."""
    with _group(bundle=True) as bundle, _group(bundle=False) as shared:
        assert (16, 8) == (bundle.entries, shared.entries)  # type: ignore[attr-defined]


def test_want_of_descriptors_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a descriptor for the experiment the start fails by that, and the next one asks."""

    def short() -> str:
        raise OSError(errno.EMFILE, "Too many open files")

    _forge(monkeypatch, "recv_bundle", short)
    with pytest.raises(OSError, match="Too many open files"):
        soundness.complaint(BUNDLE)
    _forge(monkeypatch, "recv_bundle", str)
    assert soundness.complaint(BUNDLE) == ""
