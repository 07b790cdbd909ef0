# SPDX-License-Identifier: MIT
"""The table of capabilities: which there are, the kernel's word for each, how each is seen.

The rule of all experiments: a refusal is *not accepted*; anything else than the effect itself is
*not observed*; what could not be tried at all (no memory, no network) raises OSError and becomes
``observed=None`` with the reason.  To add a capability, write such a function and a row here.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

from ioxide._probe import failing, napi, receiving, requests, rings, sending, waiting, zcrx
from ioxide._probe.findings import Capability, Finding
from ioxide._probe.outcome import Outcome
from ioxide._ring import lib

__all__ = ["EXPERIMENTS", "Experiment", "Facts"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the kernel declares: the feature bits of io_uring_setup(2), and its opcode table."""

    features: int
    opcodes: frozenset[int]


@dataclass(frozen=True, slots=True)
class Experiment:
    """One row of the table: which capability, the kernel's word for it if any, how to see it."""

    capability: Capability
    try_it: Callable[[], Outcome]
    feature: int = 0
    opcode: int | None = None

    def declared(self, facts: Facts) -> bool | None:
        if self.feature:
            return bool(facts.features & self.feature)
        if self.opcode is not None:
            return self.opcode in facts.opcodes
        return None

    def run(self, facts: Facts) -> Finding:
        try:
            outcome = self.try_it()
        except (OSError, RuntimeError) as error:  # RuntimeError: no thread can be started
            number = getattr(error, "errno", None)
            code = errno.errorcode.get(number or 0, "no errno")
            outcome = Outcome(
                accepted=None,
                observed=None,
                evidence={"error": code},
                note=f"could not be tried: {os.strerror(number) if number else error} ({code})",
            )
        return Finding(
            capability=self.capability,
            declared=self.declared(facts),
            accepted=outcome.accepted,
            observed=outcome.observed,
            evidence=outcome.evidence,
            note=outcome.note,
        )


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(Capability.BUNDLE, receiving.bundle, feature=lib.IOX_FEAT_RECVSEND_BUNDLE),
    Experiment(Capability.INC, receiving.inc),
    Experiment(Capability.INC_BUNDLE, receiving.inc_bundle),
    Experiment(Capability.NAPI, napi.napi),
    Experiment(Capability.MIN_WAIT, requests.min_wait, feature=lib.IOX_FEAT_MIN_TIMEOUT),
    Experiment(Capability.SEND_ZC, requests.send_zc, opcode=lib.IOX_PROBE_OP_SEND_ZC),
    Experiment(Capability.REGISTERED_RING_FD, rings.registered_ring_fd),
    Experiment(Capability.MULTISHOT_TIMEOUT, requests.multishot_timeout),
    Experiment(Capability.MULTISHOT_RECV, receiving.multishot_recv),
    Experiment(Capability.MULTISHOT_ACCEPT, requests.multishot_accept),
    Experiment(Capability.PBUF_RING, receiving.pbuf_ring),
    Experiment(Capability.SINGLE_ISSUER, rings.single_issuer),
    Experiment(Capability.DEFER_TASKRUN, rings.defer_taskrun),
    Experiment(Capability.NO_SQARRAY, rings.no_sqarray),
    Experiment(Capability.CQ_OVERFLOW_FLAG, rings.cq_overflow_flag),
    Experiment(Capability.MSG_RING, requests.msg_ring, opcode=lib.IOX_PROBE_OP_MSG_RING),
    Experiment(Capability.MSG_RING_CQE_FLAGS, requests.msg_ring_cqe_flags),
    Experiment(Capability.NAPI_STATIC, napi.napi_static),
    Experiment(Capability.WAIT_REGION, waiting.wait_region),
    Experiment(Capability.NO_IOWAIT, waiting.no_iowait, feature=lib.IOX_FEAT_NO_IOWAIT),
    Experiment(Capability.RECV_MSHOT_LIM, receiving.recv_mshot_lim),
    Experiment(Capability.QUERY, rings.query),
    Experiment(Capability.SQ_REWIND, rings.sq_rewind),
    Experiment(Capability.MIN_LEFT, receiving.min_left),
    Experiment(Capability.NOTIF_USER_DATA, sending.notif_user_data),
    Experiment(Capability.ZCRX_NODEV, zcrx.zcrx_nodev, opcode=lib.IOX_PROBE_OP_RECV_ZC),
    Experiment(Capability.SEND_RECV_FIXED, sending.send_recv_fixed),
    Experiment(Capability.FAIL_NTH, failing.fail_nth),
)
