# SPDX-License-Identifier: MIT
"""What the probe says, and how it is written down: as JSON for the lab, as a table for people."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Capability", "Finding", "ProbeReport"]


class Capability(StrEnum):
    """Something a kernel can or cannot do; name and value are equal, and are the names in JSON.

    The kernel in brackets is the first mainline release believed to have it.
    """

    BUNDLE = "BUNDLE"
    """One receive completion spans several provided buffers (6.10)."""
    INC = "INC"
    """A provided buffer is filled by several receives in turn, IOU_PBUF_RING_INC (6.12)."""
    INC_BUNDLE = "INC_BUNDLE"
    """A bundle spans several incremental buffers (some of 6.12, 6.16); the reactor has no use for
    it."""
    NAPI = "NAPI"
    """A ring that waits polls the network device, IORING_REGISTER_NAPI (6.9)."""
    MIN_WAIT = "MIN_WAIT"
    """A wait for many completions returns after a minimum time with fewer (6.12)."""
    SEND_ZC = "SEND_ZC"
    """Zero-copy send: a result, then a notification that the memory is free (6.0)."""
    REGISTERED_RING_FD = "REGISTERED_RING_FD"
    """io_uring_enter(2) through a registered index instead of a descriptor (5.18)."""
    MULTISHOT_TIMEOUT = "MULTISHOT_TIMEOUT"
    """One timeout request fires again and again (6.4)."""
    MULTISHOT_RECV = "MULTISHOT_RECV"
    """One receive request delivers again and again (6.0)."""
    MULTISHOT_ACCEPT = "MULTISHOT_ACCEPT"
    """One accept request accepts again and again (5.19)."""
    PBUF_RING = "PBUF_RING"
    """Receive buffers are provided through shared memory, IORING_REGISTER_PBUF_RING (5.19)."""
    SINGLE_ISSUER = "SINGLE_ISSUER"
    """A ring refuses every thread but its own, IORING_SETUP_SINGLE_ISSUER (6.0)."""
    DEFER_TASKRUN = "DEFER_TASKRUN"
    """Completions are posted only when the ring's thread asks, IORING_SETUP_DEFER_TASKRUN (6.1)."""
    NO_SQARRAY = "NO_SQARRAY"
    """A submission queue without the array of indices, IORING_SETUP_NO_SQARRAY (6.6)."""
    CQ_OVERFLOW_FLAG = "CQ_OVERFLOW_FLAG"
    """Completions that do not fit are kept, and a flag in the SQ ring says so (5.8)."""
    MSG_RING = "MSG_RING"
    """One ring posts a completion to another (5.18)."""
    MSG_RING_CQE_FLAGS = "MSG_RING_CQE_FLAGS"
    """The same with completion flags of the sender's choice (6.3)."""
    NAPI_STATIC = "NAPI_STATIC"
    """A ring polls the network devices that it was told of, and looks for no others (6.13)."""
    WAIT_REGION = "WAIT_REGION"
    """How long to wait is read from registered memory, IORING_ENTER_EXT_ARG_REG (6.13)."""
    NO_IOWAIT = "NO_IOWAIT"
    """A wait does not count as blocked on input or output, IORING_ENTER_NO_IOWAIT (6.15)."""
    RECV_MSHOT_LIM = "RECV_MSHOT_LIM"
    """A multishot receive ends by itself after so many bytes, sqe->optlen (6.17)."""
    QUERY = "QUERY"
    """One call tells opcodes, features and flags, IORING_REGISTER_QUERY (6.18)."""
    SQ_REWIND = "SQ_REWIND"
    """Requests are always taken from the queue's first place, IORING_SETUP_SQ_REWIND (7.0)."""
    MIN_LEFT = "MIN_LEFT"
    """An incremental buffer with fewer bytes left is retired (7.1, and some stable releases)."""
    NOTIF_USER_DATA = "NOTIF_USER_DATA"
    """The notification of a zero-copy send has user data of its own (7.1)."""
    ZCRX_NODEV = "ZCRX_NODEV"
    """Zero-copy receives into an area without a device, ZCRX_REG_NODEV (7.1)."""
    SEND_RECV_FIXED = "SEND_RECV_FIXED"
    """Plain sends and receives use registered buffers, IORING_RECVSEND_FIXED_BUF (7.2)."""
    FAIL_NTH = "FAIL_NTH"
    """A memory allocation of the kernel fails on demand, /proc/thread-self/fail-nth (4.14); only a
    kernel that was built with CONFIG_FAILSLAB has it, and the reactor has no use for it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of one capability on one kernel.

    ``declared``: the kernel names it in its feature bits or opcode table; None when it has no such
    word for it. ``accepted``: the calls that ask for it were not refused; None when they could not
    be made. ``observed``: its effect was seen; False means tried without effect, None means that it
    could not be tried, and ``note`` then says why. ``evidence`` is what the kernel really returned:
    results, flags, buffer ids, microseconds (``*_us``), counter deltas.
    """

    capability: Capability
    declared: bool | None
    accepted: bool | None
    observed: bool | None
    evidence: Mapping[str, object] = field(hash=False)
    note: str


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """All findings on the running kernel.

    ``release`` is uname -r.  ``error`` is None, or one sentence saying why io_uring cannot be used
    here and what to do about it; there are no findings then.  ``facts`` are the kernel's own words
    on what is no capability: features, opcodes, set-up flags, kinds of buffer rings, limits.  They
    are there to be compared between kernels, and nothing is promised about them.
    """

    release: str
    error: str | None
    findings: tuple[Finding, ...]
    facts: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __getitem__(self, capability: Capability | str) -> Finding:
        """The finding on ``capability``.

        :raises KeyError: nothing was found out about it.
        """
        for finding in self.findings:
            if finding.capability == capability:
                return finding
        raise KeyError(f"the probe of {self.release} has no finding on {capability}")

    def observed(self, capability: Capability | str) -> bool:
        """Whether the effect of ``capability`` was really seen here.

        :raises ValueError: there is no capability of that name.
        """
        wanted = Capability(capability)
        return any(f.capability is wanted and f.observed is True for f in self.findings)

    def to_json(self) -> str:
        """The report as JSON text, which :meth:`from_json` reads."""
        return json.dumps(
            {
                "release": self.release,
                "error": self.error,
                "capabilities": {
                    finding.capability.value: {
                        "declared": finding.declared,
                        "accepted": finding.accepted,
                        "observed": finding.observed,
                        "evidence": dict(finding.evidence),
                        "note": finding.note,
                    }
                    for finding in self.findings
                },
                "facts": dict(self.facts),
            },
            indent=2,
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> ProbeReport:
        """The report that :meth:`to_json` wrote.

        :raises ValueError: the text is not such a report; the sentence says where it is not.
        """
        try:
            data: Any = json.loads(text)
        except ValueError as error:
            raise ValueError(f"a probe report must be JSON, but {error}") from error
        if not isinstance(data, dict):
            raise ValueError(f"a probe report must be a JSON object, not {_kind(data)}")
        release = _member(data, "release", str)
        complaint = _member(data, "error", str, type(None))
        capabilities = _member(data, "capabilities", dict)
        findings = tuple(_finding(name, entry) for name, entry in capabilities.items())
        facts = _member(data, "facts", dict)
        for name in facts:
            _member(facts, name, str, where="the facts")
        return cls(release=release, error=complaint, findings=findings, facts=facts)

    def table(self) -> str:
        """The report as plain text: one line per capability, and the error when there is one."""
        lines = [f"io_uring on kernel {self.release}"]
        if self.error is not None:
            lines += ["", *textwrap.wrap(f"cannot be used: {self.error}", 96)]
        if self.findings:
            head = ("capability", "declared", "accepted", "observed", "evidence")
            rows = [
                (
                    str(f.capability),
                    _WORDS[f.declared],
                    _WORDS[f.accepted],
                    _WORDS[f.observed],
                    _brief(f),
                )
                for f in self.findings
            ]
            widths = [max(len(row[i]) for row in (head, *rows)) for i in range(4)]
            for row in (head, tuple("-" * len(word) for word in head), *rows):
                cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
                lines.append("  ".join((*cells, row[4])).rstrip())
            lines += ["", "declared: '-' = the kernel has no word for it; 'not tried' is told why."]
        return "\n".join([*lines, *self._facts_by_kind()])

    def _facts_by_kind(self) -> Iterator[str]:
        """The facts as paragraphs, one a kind: what is there, then the others with their values."""
        kinds: dict[str, list[str]] = {}
        for name, value in sorted(self.facts.items(), key=lambda fact: fact[1] != "yes"):
            kind, _, what = name.partition(".")
            kinds.setdefault(kind, []).append(what if value == "yes" else f"{what}={value}")
        for kind, words in kinds.items():
            head = f"{kind}: "
            yield ""
            yield from textwrap.wrap(", ".join(words), 96, initial_indent=head)


_WORDS: Mapping[bool | None, str] = {True: "yes", False: "no", None: "-"}

_BRIEF_WIDTH = 96


def _brief(finding: Finding) -> str:
    """The note, which says why not, or as much evidence as fits on a line."""
    if finding.observed is not True:
        prefix = "not tried: " if finding.observed is None else ""
        return prefix + (finding.note or "no reason given")
    parts = []
    for name, value in finding.evidence.items():
        if isinstance(value, list | tuple):
            text = "[" + "; ".join(str(item) for item in value) + "]"
        else:
            text = str(value)
        parts.append(f"{name}={text}")
    return textwrap.shorten(", ".join(parts), _BRIEF_WIDTH, placeholder=" ...")


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _member(data: Mapping[str, Any], name: str, *kinds: type, where: str = "the report") -> Any:
    if name not in data:
        raise ValueError(f"{where} has no member {name!r}")
    value = data[name]
    # bool is a subclass of int, but no member here is an int, so isinstance() is exact enough.
    if not isinstance(value, kinds):
        wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
        raise ValueError(f"{name!r} of {where} must be {wanted}, not {_kind(value)}")
    return value


def _finding(name: str, entry: object) -> Finding:
    try:
        capability = Capability(name)
    except ValueError as error:
        known = ", ".join(Capability)
        raise ValueError(f"{name!r} is no capability; known are {known}") from error
    if not isinstance(entry, dict):
        raise ValueError(f"the finding on {name} must be a JSON object, not {_kind(entry)}")
    where = f"the finding on {name}"
    return Finding(
        capability=capability,
        declared=_member(entry, "declared", bool, type(None), where=where),
        accepted=_member(entry, "accepted", bool, type(None), where=where),
        observed=_member(entry, "observed", bool, type(None), where=where),
        evidence=_member(entry, "evidence", dict, where=where),
        note=_member(entry, "note", str, where=where),
    )
