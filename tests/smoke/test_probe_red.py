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

from ioxide._probe import napi, receiving, requests, rings, sending, waiting, zcrx
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
        (rings.sq_rewind, {"IOX_SETUP_SQ_REWIND": 0}),
        (sending.send_recv_fixed, {"IOX_RECVSEND_FIXED_BUF": 0}),
        (waiting.no_iowait, {"IOX_ENTER_NO_IOWAIT": 0}),
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
    monkeypatch.setattr(module, "_PATIENCE_S", 1.0, raising=False)
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
        (rings.sq_rewind, {"IOX_SETUP_SQ_REWIND": 1 << 31}),
        (rings.query, {"IOX_REGISTER_QUERY": 250}),
        (receiving.recv_mshot_lim, {"IOX_RECV_MULTISHOT": 1 << 15}),
        (receiving.min_left, {"IOX_PBUF_RING_INC": 1 << 15}),
        (sending.send_recv_fixed, {"IOX_RECVSEND_FIXED_BUF": 1 << 15}),
        (waiting.no_iowait, {"IOX_ENTER_NO_IOWAIT": 1 << 31}),
        (waiting.wait_region, {"IOX_REGISTER_MEM_REGION": 250}),
        (zcrx.zcrx_nodev, {"IOX_SETUP_CQE_MIXED": 1 << 31}),
        (zcrx.zcrx_nodev, {"IOX_REGISTER_ZCRX_IFQ": 250}),
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


@pytest.mark.parametrize(
    ("experiment", "field"),
    [(receiving.recv_mshot_lim, "file_index"), (sending.notif_user_data, "addr3")],
    ids=["recv_mshot_lim", "notif_user_data"],
)
def test_field_without_effect_is_not_observed(
    monkeypatch: pytest.MonkeyPatch, experiment: Callable[[], Outcome], field: str
) -> None:
    """A kernel that takes a new field of a request and does not look at it is found out."""
    push = RawRing.push

    def ignoring(ring: RawRing, opcode: int, **fields: int) -> None:
        push(ring, opcode, **{n: v for n, v in fields.items() if n != field})

    monkeypatch.setattr(RawRing, "push", ignoring)
    collect = RawRing.collect
    monkeypatch.setattr(
        RawRing, "collect", lambda ring, enough, **_: collect(ring, enough, timeout_ms=300.0)
    )
    outcome = experiment()
    assert (True, False) == (outcome.accepted, outcome.observed)
    assert outcome.note


@pytest.mark.needs("INC")
def test_min_left_without_effect_is_not_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that uses a buffer on to its end has not looked at how much has to be left."""
    provide = RawRing.provide
    monkeypatch.setattr(
        RawRing, "provide", lambda ring, **how: provide(ring, **{**how, "min_left": 0})
    )
    outcome = receiving.min_left()
    assert outcome.observed is False
    assert (True, "the buffer with too few bytes") == (outcome.accepted, outcome.note[:29])


def test_bytes_elsewhere_than_in_the_area_are_not_observed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What came without being in the area was not received into it; here a plain receive's."""
    monkeypatch.setattr(zcrx, "lib", _Lib(IOX_SETUP_CQE_MIXED=0))
    monkeypatch.setattr(zcrx, "_register", lambda *_: 0)
    completions = [Completion(0, 3000, lib.IOX_CQE_F_MORE), Completion(0, 0, 0)]
    monkeypatch.setattr(RawRing, "collect", lambda *_, **__: completions)
    outcome = zcrx.zcrx_nodev()
    assert (True, False) == (outcome.accepted, outcome.observed)
    assert outcome.note


@pytest.mark.needs("WAIT_REGION")
def test_wait_that_is_told_elsewhere_is_not_a_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that all last as long as the first entry says have not read the region again."""
    first = waiting._WAITS_MS[0] * 1000

    def once(ring: object, _wait: int, _offset: int) -> int:
        lib.iox_probe_enter(ring, ring.fd, 1, lib.IOX_ENTER_GETEVENTS, first, 0)  # type: ignore[attr-defined]
        return -errno.ETIME

    monkeypatch.setattr(waiting, "lib", _Lib(iox_probe_enter_by_region=once))
    outcome = waiting.wait_region()
    assert (True, False) == (outcome.accepted, outcome.observed)


@pytest.mark.parametrize("experiment", [rings.query, zcrx.zcrx_nodev], ids=["query", "zcrx_nodev"])
def test_call_without_effect_is_not_observed(
    monkeypatch: pytest.MonkeyPatch, experiment: Callable[[], Outcome]
) -> None:
    """A kernel that says yes to a call and does nothing is found out by what was asked for."""
    monkeypatch.setattr(RawRing, "register", lambda *_: 0)
    collect = RawRing.collect
    monkeypatch.setattr(
        RawRing, "collect", lambda ring, enough, **_: collect(ring, enough, timeout_ms=300.0)
    )
    outcome = experiment()
    assert outcome.observed is False
    assert outcome.note


def test_waits_that_nobody_counts_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a plain wait does not count as blocked either, NO_IOWAIT could not be tried."""
    monkeypatch.setattr(waiting, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(waiting, "_blocked_while_waiting", lambda _: (0, [1] * 4))
    monkeypatch.setattr(waiting, "_least_blocked", lambda: 0)
    outcome = waiting.no_iowait()
    assert (True, None) == (outcome.accepted, outcome.observed)
    assert "do not count" in outcome.note


@pytest.mark.parametrize(
    ("static", "accepted", "observed", "words"),
    [
        ({"result": -errno.ENOMEM}, None, None, "could not be tried: Cannot allocate memory"),
        ({"not_tried": "no route"}, None, None, "could not be tried: no route"),
        ({"BusyPollRxPackets": 0, "control_without_device": 0}, True, False, "no device was"),
        ({"BusyPollRxPackets": 5, "control_without_device": 5}, True, False, "not told of"),
        ({"BusyPollRxPackets": 5, "control_without_device": 0}, True, True, ""),
    ],
    ids=["no-memory", "not-tried", "not-polled", "any-device", "polled"],
)
def test_static_tracking_is_judged_by_both_counts(
    monkeypatch: pytest.MonkeyPatch,
    static: dict[str, object],
    accepted: bool | None,
    observed: bool | None,
    words: str,
) -> None:
    """A device that the ring was told of is polled, and before that none was."""
    monkeypatch.setattr(RawRing, "register", lambda *_: 0)
    monkeypatch.setattr(napi, "_asked", [napi.Answer("", evidence={}, static=static)])
    outcome = napi.napi_static()
    assert (accepted, observed) == (outcome.accepted, outcome.observed)
    assert words in outcome.note
    assert [] == napi._asked


def test_static_tracking_that_is_refused_asks_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 6.13 the field was padding: what the child said of it to the other question goes."""
    monkeypatch.setattr(napi, "_asked", [napi.Answer("")])
    monkeypatch.setattr(RawRing, "register", lambda *_: -errno.EINVAL)
    outcome = napi.napi_static()
    assert (False, False) == (outcome.accepted, outcome.observed)
    assert -errno.EINVAL == outcome.evidence["result"]
    assert [] == napi._asked


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
            'print(\'{"static": {}, "evidence": {"BusyPollRxPackets": 0, "bytes": 9, '
            '"control_without_napi": 0}}\')',
            False,
            "did not grow while 9 bytes",
        ),
        (
            'print(\'{"static": {}, "evidence": {"BusyPollRxPackets": 5, "bytes": 9, '
            '"control_without_napi": 5}}\')',
            None,
            "grows without NAPI too",
        ),
        (
            'print(\'{"static": {}, "evidence": {"bytes": 9, "control_without_napi": 0}}\')',
            False,
            "did not grow",
        ),
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
    found, evidence, note = napi._judge(napi._ask_child())
    assert observed is found
    assert words in note
    assert isinstance(evidence, dict)
    assert before == _children()


def test_child_that_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedded interpreter has no executable: not tried, and why."""
    monkeypatch.setattr(sys, "executable", "")
    assert (None, {}) == napi._judge(napi._ask_child())[:2]
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(FileNotFoundError):  # an OSError, which the table turns into "not tried"
        napi._ask_child()
