# SPDX-License-Identifier: MIT
"""What this kernel's io_uring can do, found out by doing it.

A version number says little: distributions backport, and releases have bugs.  So each capability is
told three times: whether the kernel *declares* it (feature bits, opcode table), whether it
*accepted* the calls that ask for it, and whether its effect was *observed*, with what the kernel
really returned as the evidence.  Only the last is worth relying on.
"""

from __future__ import annotations

import os

from ioxide._probe import facts, mask
from ioxide._probe.findings import Capability, Finding, ProbeReport
from ioxide._probe.rawring import RawRing
from ioxide._probe.refusal import explain
from ioxide._probe.table import EXPERIMENTS, Facts

__all__ = ["Capability", "Finding", "ProbeReport", "probe"]


def probe() -> ProbeReport:
    """Try every capability on the running kernel; blocks the calling thread for about two seconds.

    It opens small rings of its own and closes them again; rings of the calling thread are not
    touched.  For NAPI it starts a child process, which needs permission to make network namespaces
    (as root, or where user namespaces are allowed); without it that one is reported as not tried.
    No wait is unbounded.

    It does not raise when io_uring is forbidden or lacks memory: ``error`` of the report then holds
    one sentence that says so and what to do.

    What the environment variable ``IOXIDE_CAPS`` takes away (``-inc,-min_wait``) is not tried but
    reported as not observed, with the note "masked"; the facts are the kernel's own all the same.

    :raises ValueError: ``IOXIDE_CAPS`` cannot be meant; the sentence says why.
    """
    masked = mask.active()
    release = os.uname().release
    try:
        with RawRing() as ring:
            opcodes = frozenset(op for op in range(256) if ring.has_opcode(op))
            declared = Facts(features=ring.features, opcodes=opcodes)
    except OSError as error:
        limits = facts.of_the_machine()
        return ProbeReport(release=release, error=explain(error), findings=(), facts=limits)
    findings = tuple(
        _taken_away(experiment.capability)
        if experiment.capability in masked
        else experiment.run(declared)
        for experiment in EXPERIMENTS
    )
    said = facts.of_the_ring(declared.features, declared.opcodes) | facts.of_the_machine()
    return ProbeReport(release=release, error=None, findings=findings, facts=said)


def _taken_away(capability: Capability) -> Finding:
    return Finding(
        capability, declared=None, accepted=None, observed=False, evidence={}, note=mask.NOTE
    )
