# SPDX-License-Identifier: MIT
"""The probe is not to be fooled: with the effect taken away, nothing is observed.

Each experiment runs here with its flag or opcode replaced by one that lacks the effect, as on a
kernel that takes the request and does not act on it.  NO_SQARRAY is not among them: without its
flag the ring is another one, and works; that the kernel takes no index from the array is what the
experiment shows by never writing one.
"""

from __future__ import annotations

import errno
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ioxide._probe import napi, receiving, requests, rings
from ioxide._probe.outcome import Outcome
from ioxide._probe.rawring import Completion, RawRing
from ioxide._ring._native import lib


class _Lib:
    """The native library with some constants changed."""

    def __init__(self, **changed: object) -> None:
        self._changed = changed

    def __getattr__(self, name: str) -> object:
        return self._changed[name] if name in self._changed else getattr(lib, name)


@pytest.mark.parametrize(
    ("experiment", "changed"),
    [
        (receiving.bundle, {"IOX_RECVSEND_BUNDLE": 0}),
        (receiving.inc, {"IOX_PBUF_RING_INC": 0}),
        (receiving.multishot_recv, {"IOX_RECV_MULTISHOT": 0}),
        (requests.multishot_accept, {"IOX_ACCEPT_MULTISHOT": 0}),
        (requests.multishot_timeout, {"IOX_TIMEOUT_MULTISHOT": 0}),
        (
            requests.send_zc,
            {"IOX_PROBE_OP_SEND_ZC": lib.IOX_PROBE_OP_SEND, "IOX_SEND_ZC_REPORT_USAGE": 0},
        ),
        (requests.msg_ring, {"IOX_PROBE_OP_MSG_RING": lib.IOX_PROBE_OP_NOP}),
        (requests.msg_ring_cqe_flags, {"IOX_PROBE_MSG_RING_FLAGS_PASS": 0}),
        (rings.single_issuer, {"IOX_SETUP_SINGLE_ISSUER": 0}),
        (rings.defer_taskrun, {"IOX_SETUP_DEFER_TASKRUN": 0}),
        (rings.registered_ring_fd, {"IOX_ENTER_REGISTERED_RING": 0}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_request_without_effect_is_not_observed(
    monkeypatch: pytest.MonkeyPatch, experiment: Callable[[], Outcome], changed: dict[str, int]
) -> None:
    """An experiment whose request has no effect ends in observed=False, with a note."""
    module = sys.modules[experiment.__module__]
    monkeypatch.setattr(module, "lib", _Lib(**changed))
    monkeypatch.setattr(module, "WAIT_MS", 300, raising=False)
    # What does not come is waited for in full, so the wait is made short.
    collect = RawRing.collect
    monkeypatch.setattr(
        RawRing,
        "collect",
        lambda ring, enough, *, timeout_ms=300.0: collect(ring, enough, timeout_ms=timeout_ms),
    )
    outcome = experiment()
    assert outcome.observed is False
    assert outcome.note


@pytest.mark.parametrize(
    ("experiment", "changed"),
    [
        (receiving.bundle, {"IOX_RECVSEND_BUNDLE": 1 << 15}),
        (receiving.inc, {"IOX_PBUF_RING_INC": 1 << 15}),
        (receiving.multishot_recv, {"IOX_RECV_MULTISHOT": 1 << 15}),
        (requests.multishot_accept, {"IOX_ACCEPT_MULTISHOT": 1 << 15}),
        (requests.multishot_timeout, {"IOX_TIMEOUT_MULTISHOT": 1 << 31}),
        (requests.send_zc, {"IOX_PROBE_OP_SEND_ZC": 250}),
        (requests.msg_ring, {"IOX_PROBE_OP_MSG_RING": 250}),
        (requests.msg_ring_cqe_flags, {"IOX_PROBE_MSG_RING_FLAGS_PASS": 1 << 31}),
        (rings.single_issuer, {"IOX_SETUP_SINGLE_ISSUER": 1 << 31}),
        (rings.defer_taskrun, {"IOX_SETUP_DEFER_TASKRUN": 1 << 31}),
        (rings.no_sqarray, {"IOX_SETUP_NO_SQARRAY": 1 << 31}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_request_that_the_kernel_does_not_know_is_not_accepted(
    monkeypatch: pytest.MonkeyPatch, experiment: Callable[[], Outcome], changed: dict[str, int]
) -> None:
    """Flags and opcodes from no kernel stand for new ones on an old kernel: refused with EINVAL."""
    monkeypatch.setattr(sys.modules[experiment.__module__], "lib", _Lib(**changed))
    outcome = experiment()
    assert (False, False) == (outcome.accepted, outcome.observed)
    assert -errno.EINVAL == outcome.evidence["result"]
    assert outcome.note.startswith("the kernel refused ")


@pytest.mark.parametrize(
    ("experiment", "function"),
    [
        (napi.napi, "iox_probe_napi"),
        (rings.registered_ring_fd, "iox_probe_ring_fd_register"),
    ],
    ids=["napi", "registered_ring_fd"],
)
def test_register_opcode_that_is_refused_is_not_accepted(
    monkeypatch: pytest.MonkeyPatch, experiment: Callable[[], Outcome], function: str
) -> None:
    """io_uring_register(2) with an opcode that the kernel does not know is EINVAL, too."""
    module = sys.modules[experiment.__module__]
    monkeypatch.setattr(module, "lib", _Lib(**{function: lambda *_: -errno.EINVAL}))
    outcome = experiment()
    assert (False, False) == (outcome.accepted, outcome.observed)
    assert -errno.EINVAL == outcome.evidence["result"]


def test_minimum_wait_that_is_refused_is_not_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 6.12 the field had to be zero: the wait is refused, the request before it is not."""
    enter = RawRing.enter

    def old_enter(ring: RawRing, *, min_wait_us: int = 0, **how: int) -> int:
        return -errno.EINVAL if min_wait_us else enter(ring, **how)

    monkeypatch.setattr(RawRing, "enter", old_enter)
    outcome = requests.min_wait()
    assert (False, False) == (outcome.accepted, outcome.observed)
    assert -errno.EINVAL == outcome.evidence["result"]


@pytest.mark.needs("MIN_WAIT")
def test_full_wait_is_not_a_minimum_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait that goes on to the end although a completion is there is not what is looked for."""
    enter = RawRing.enter
    monkeypatch.setattr(
        RawRing, "enter", lambda ring, **how: enter(ring, **{**how, "min_wait_us": 0})
    )
    monkeypatch.setattr(requests, "_FULL_WAIT_MS", 300)
    monkeypatch.setattr(requests, "_PATIENCE_S", 0.5)
    outcome = requests.min_wait()
    assert (True, False) == (outcome.accepted, outcome.observed)
    assert outcome.note


def test_large_queue_does_not_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all completions have room no overflow is flagged, and so none observed."""
    monkeypatch.setattr(rings, "RawRing", lambda entries, **_: RawRing(entries, cq_entries=64))
    outcome = rings.cq_overflow_flag()
    assert outcome.observed is False


def test_wait_for_what_never_comes_is_bounded() -> None:
    """Nothing is in flight: collect() returns what there is, which is nothing."""
    with RawRing() as ring:
        assert [] == ring.collect(1, timeout_ms=20)


def test_request_without_any_answer_is_not_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose completion never comes is neither accepted nor observed."""
    monkeypatch.setattr(RawRing, "collect", lambda *_, **__: [])
    outcome = requests.multishot_timeout()
    assert (None, False) == (outcome.accepted, outcome.observed)
    assert "nothing came of" in outcome.note


def test_error_that_says_nothing_about_the_capability_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lack of memory is not taken for a refusal, nor for acceptance."""
    monkeypatch.setattr(RawRing, "collect", lambda *_, **__: [Completion(0, -errno.ENOMEM, 0)])
    with pytest.raises(OSError, match="IORING_TIMEOUT_MULTISHOT") as caught:
        requests.multishot_timeout()
    assert errno.ENOMEM == caught.value.errno


# ---- the child of the NAPI experiment ----


def _children() -> str:
    return Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()


@pytest.mark.slow  # eight interpreters, and nothing in it depends on the kernel
@pytest.mark.parametrize(
    ("program", "observed", "words"),
    [
        ("print('no JSON')", None, "ended with 0"),
        ("raise SystemExit('out of luck')", None, "saying 'out of luck'"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", None, "ended with -9"),
        ('print(\'{"refused": "no veth (EOPNOTSUPP)"}\')', None, "the veth pair failed: no veth"),
        (
            'print(\'{"evidence": {"BusyPollRxPackets": 0, "bytes": 9, '
            '"control_without_napi": 0}}\')',
            False,
            "did not grow while 9 bytes",
        ),
        (
            'print(\'{"evidence": {"BusyPollRxPackets": 5, "bytes": 9, '
            '"control_without_napi": 5}}\')',
            None,
            "grows without NAPI too",
        ),
        ('print(\'{"evidence": {"bytes": 9, "control_without_napi": 0}}\')', False, "did not grow"),
        ("import time; time.sleep(600)", None, "took more than 5 s"),
    ],
    ids=["no-json", "exit", "killed", "refused", "no-growth", "no-proof", "no-counter", "hangs"],
)
def test_child_that_fails_is_told_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    program: str,
    observed: bool | None,
    words: str,
) -> None:
    """Whatever becomes of the child, the finding says it, and no process is left."""
    (tmp_path / "ioxide_test_child.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(napi, "_CHILD", "ioxide_test_child")
    monkeypatch.setattr(napi, "_CHILD_TIMEOUT_S", 5.0)
    before = _children()
    found, evidence, note = napi._ask_child()
    assert observed is found
    assert words in note
    assert isinstance(evidence, dict)
    assert before == _children()


def test_child_that_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedded interpreter has no executable: not tried, and why."""
    monkeypatch.setattr(sys, "executable", "")
    assert (None, {}) == napi._ask_child()[:2]
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(FileNotFoundError):  # an OSError, which the table turns into "not tried"
        napi._ask_child()
