# SPDX-License-Identifier: MIT
"""What can be configured, checked as a whole before any descriptor or thread exists."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum

from ioxide._common.modes import ContinuationMode
from ioxide.errors import ConfigError, Problem

# Kernel limits: IORING_MAX_ENTRIES and IORING_MAX_CQ_ENTRIES (io_uring_setup(2)); a provided-buffer
# ring takes at most 2^15 entries, because buffer ids are 16 bits wide (io_uring_register(2), 5.19).
_MAX_SQ_ENTRIES = 32768
_MAX_CQ_ENTRIES = 65536
_MAX_SLOTS = 32768
_MAX_LISTENERS = 64  # IOX_MAX_LISTENERS in listener_state.h
# One SEND carries a 32-bit length, of which the kernel moves less than 2 GiB at a time.
_MAX_WRITE_LIMIT = 1 << 30


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _power_of_two(value: int) -> bool:
    return value & (value - 1) == 0


def _round_up(value: int) -> int:
    """The power of two that the kernel makes of a submission queue's size."""
    return 1 << (value - 1).bit_length()


class WriteOverflow(StrEnum):
    """What `Connection.write()` does when the connection's write slab is full.

    Either way the bytes of one batch leave in one submission, in order, and `write_limit` bounds
    them.
    """

    GROW = "grow"
    """Make the slab larger, doubling it up to `write_limit`: one SEND of contiguous memory."""
    SEGMENTED = "segmented"
    """Take another slab of `write_slab_size` beside it: one SENDMSG over all of them. No byte is
    moved, and no slab is ever larger than the others, so all of them are reused."""


# Group ids are 16 bits wide; 0 and 1 are not given to connections, 65535 is asked with.
_MAX_GROUPS = 65532


@dataclass(frozen=True, slots=True, kw_only=True)
class IncrementalConfig:
    """Receive buffers of its own for each connection (IOU_PBUF_RING_INC, Linux 6.12).

    A buffer is filled by one receive after the other, so small messages do not use up a buffer
    each, and a connection that hoards bytes starves nobody but itself.  Memory for
    ``max_connections * recv_slots * recv_buffer_size`` bytes is what a full reactor uses; a start
    with which that comes to more than half of the machine's memory is warned of.
    """

    max_connections: int = 4096
    """Connections of one reactor; the next one is closed as soon as it is accepted."""
    recv_slots: int = 16
    """Receive buffers of a connection; a power of two."""
    recv_buffer_size: int = 4096
    """Size of one of them."""

    def __post_init__(self) -> None:
        problems = tuple(
            Problem(f"incremental.{field}", value, rule)
            for field, value, ok, rule in (
                (
                    "max_connections",
                    self.max_connections,
                    _is_int(self.max_connections) and 1 <= self.max_connections <= _MAX_GROUPS,
                    f"must be an integer from 1 to {_MAX_GROUPS}",
                ),
                (
                    "recv_slots",
                    self.recv_slots,
                    _is_int(self.recv_slots)
                    and 1 <= self.recv_slots <= _MAX_SLOTS
                    and _power_of_two(self.recv_slots),
                    f"must be a power of two from 1 to {_MAX_SLOTS}",
                ),
                (
                    "recv_buffer_size",
                    self.recv_buffer_size,
                    _is_int(self.recv_buffer_size) and 1 <= self.recv_buffer_size < 2**31,
                    f"must be an integer from 1 to {2**31 - 1}",
                ),
            )
            if not ok
        )
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """How a `Server` listens and how much its reactors may use.

    Sizes are bytes, times are milliseconds.  The constructor checks every value and raises one
    `ConfigError` that names all the bad ones.
    """

    host: str = "127.0.0.1"
    """Address to listen on; with `dual_stack` an IPv6 one such as ``::``."""
    port: int = 8080
    """0 lets the kernel choose; `Server.port` tells which. All reactors share it."""
    extra_ports: tuple[int, ...] = ()
    """More ports for the same handler."""
    dual_stack: bool = False
    """Listen on IPv6 and take IPv4 too (IPV6_V6ONLY off)."""
    listen_backlog: int = 1024
    """listen(2)'s backlog; the kernel caps it at net.core.somaxconn."""

    reactors: int = 1
    """Reactor threads, each with a ring of its own; warned of beyond the processors there are."""
    ring_entries: int = 256
    """Submission queue entries; the kernel rounds up to a power of two. A batch of more is
    submitted in several goes. From 6.13 on the pages of both queues, and those of the ring of
    receive buffers, are charged to the user's RLIMIT_MEMLOCK: 116 KiB with the defaults."""
    cq_entries: int | None = 4096
    """Completion queue entries (IORING_SETUP_CQSIZE, 5.5); None: twice `ring_entries`."""
    register_ring_fd: bool = True
    """Enter through a registered ring descriptor (5.18); silently the plain one where not."""

    recv_buffer_size: int = 32768
    """Size of one receive buffer."""
    recv_slots: int = 4096
    """Receive buffers of a reactor, shared by its connections; a power of two. Memory only for
    those that the load of the last moments needs. An eighth of them is a reserve: when the others
    are held, unread bytes are copied out of them into memory of their own, and what `read()`
    lends beyond three quarters is a copy."""
    recv_queue_entries: int = 64
    """Received buffers a connection may hold unread before its receive pauses; a power of two."""
    recv_queue_bytes: int = 256 << 10
    """Received bytes a connection may hold unread before its receive pauses. What the kernel has
    delivered in the same turn comes on top: up to 33 buffers on 6.18, on 6.1 all there is."""
    incremental: IncrementalConfig | None = None
    """Buffers of its own for each connection instead of shared ones (6.12)."""
    recv_bundle: bool = False
    """Let one completion span several shared buffers (6.10); not with `incremental`."""
    write_slab_size: int = 16384
    """Size of the memory that `write()` copies into, rounded up to whole pages. Large `bytes` are
    not copied, see `Connection`."""
    write_limit: int = 16 << 20
    """Unsent bytes of one connection beyond which `write()` raises `BufferError`."""
    write_overflow: WriteOverflow = WriteOverflow.GROW
    """What becomes of a batch of written bytes that is larger than a slab."""
    pool_max: int = 1024
    """Idle write slabs a reactor keeps; grown ones, at most as many bytes again. Those beyond 64,
    and grown ones, are given back when they have not been used for a second."""

    zero_copy_send: bool = False
    """Send with SEND_ZC (6.0): pays for large answers over a real network, not on loopback.
    A message of several slabs (`WriteOverflow.SEGMENTED`) is sent with SENDMSG_ZC (6.1)."""

    napi_busy_poll_us: int = 0
    """Poll the network device this long before sleeping (6.9); 0 is off. Burns a core."""
    napi_prefer_busy_poll: bool = False
    """Keep the device's interrupts off meanwhile (SO_PREFER_BUSY_POLL)."""
    min_wait_us: int = 0
    """Wait so long for `min_wait_nr` completions before taking fewer (6.12); 0 is off. A lone
    request, post or wake waits up to this long, so keep it well under a millisecond."""
    min_wait_nr: int = 1
    """How many completions end the wait at once."""

    continuation_mode: ContinuationMode = ContinuationMode.INLINE
    """Where a handler goes on when what it awaits of its connection is done."""
    pool_threads: int = 4
    """Worker threads of a reactor in the modes `pool` and `pool_coalesced`; no others use them."""

    max_connections: int | None = None
    """Connections of one reactor; the next one is closed as soon as it is accepted."""
    read_timeout_ms: int = 60_000
    """Longest wait of one parked read in which the peer neither sends nor takes anything, and of a
    peer's FIN after ours; 0 is no limit for reads."""
    send_timeout_ms: int = 60_000
    """Longest time for one batch of written bytes to be taken by the peer, however many sends that
    takes and however much it takes meanwhile; 0 is no limit."""
    context: bool = True
    """Give each reactor a `ReactorContext`. False leaves out that and the queue of posts; handlers
    still run, and go on, on their reactor's loop."""
    stall_warning_ms: int = 1_000
    """Log the stack of a reactor, or of a worker of the pool modes, that one tick's callbacks have
    kept for so long, once per stall, and count it (`Counters.stalls`); 0 is off."""
    stop_timeout_ms: int = 5_000
    """How long `Server.stop()` lets handlers finish before it cancels them, and as long again how
    long it then lets them clean up."""

    def __post_init__(self) -> None:
        problems = tuple(self._problems())
        if problems:
            raise ConfigError(problems)

    def _problems(self) -> list[Problem]:
        found: list[Problem] = []

        def check(ok: bool, field: str, rule: str) -> bool:
            if not ok:
                found.append(Problem(field, getattr(self, field), rule))
            return ok

        def integer(field: str, low: int, high: int | None = None, *, power: bool = False) -> bool:
            value = getattr(self, field)
            rule = f"must be an integer of at least {low}"
            if high is not None:
                rule = f"must be an integer from {low} to {high}"
            if power:
                rule = rule.replace("an integer", "a power of two")
            ok = (
                _is_int(value)
                and value >= low
                and (high is None or value <= high)
                and (not power or _power_of_two(value))
            )
            return check(ok, field, rule)

        check(
            isinstance(self.host, str) and bool(self.host),
            "host",
            "must be an address such as '127.0.0.1', '0.0.0.0' or '::'",
        )
        integer("port", 0, 65535)
        ports = self.extra_ports
        check(
            isinstance(ports, tuple)
            and all(_is_int(port) and 1 <= port <= 65535 for port in ports)
            and len(set(ports)) == len(ports)
            and self.port not in ports
            and len(ports) < _MAX_LISTENERS,
            "extra_ports",
            "must be a tuple of at most 63 different ports from 1 to 65535 without the main port",
        )
        integer("listen_backlog", 1, 2**31 - 1)
        integer("reactors", 1, 1024)
        ring_ok = integer("ring_entries", 1, _MAX_SQ_ENTRIES)
        if (
            self.cq_entries is not None
            and integer("cq_entries", 1, _MAX_CQ_ENTRIES, power=True)
            and ring_ok
        ):
            low = _round_up(self.ring_entries)
            check(
                self.cq_entries >= low,
                "cq_entries",
                f"must be at least ring_entries as the kernel rounds it, {low}",
            )
        integer("recv_buffer_size", 1, 2**31 - 1)
        integer("recv_slots", 1, _MAX_SLOTS, power=True)
        integer("recv_queue_entries", 1, 1 << 20, power=True)
        integer("recv_queue_bytes", 1, 2**31 - 1)
        slab_ok = integer("write_slab_size", 1, _MAX_WRITE_LIMIT)
        if integer("write_limit", 1, _MAX_WRITE_LIMIT) and slab_ok:
            check(
                self.write_limit >= self.write_slab_size,
                "write_limit",
                f"must be at least write_slab_size, {self.write_slab_size} bytes",
            )
        check(
            isinstance(self.write_overflow, WriteOverflow),
            "write_overflow",
            "must be WriteOverflow.GROW or WriteOverflow.SEGMENTED",
        )
        integer("pool_max", 0, 1 << 20)
        check(
            self.incremental is None or isinstance(self.incremental, IncrementalConfig),
            "incremental",
            "must be None or an IncrementalConfig",
        )
        check(
            isinstance(self.recv_bundle, bool) and not (self.recv_bundle and self.incremental),
            "recv_bundle",
            "must be True or False, and False with incremental: released kernels that have both "
            "lose track of a buffer's end (docs/bundles.md)",
        )
        integer("napi_busy_poll_us", 0, 2**32 - 1)
        integer("min_wait_us", 0, 2**32 - 1)
        integer("min_wait_nr", 1, self._cq_size() if ring_ok else None)
        check(
            isinstance(self.continuation_mode, ContinuationMode),
            "continuation_mode",
            "must be a ContinuationMode: " + ", ".join(mode.name for mode in ContinuationMode),
        )
        integer("pool_threads", 1, 256)
        if self.max_connections is not None:
            integer("max_connections", 1, 2**31 - 1)
        for field in (
            "read_timeout_ms",
            "send_timeout_ms",
            "stop_timeout_ms",
            "stall_warning_ms",
        ):
            integer(field, 0, 2**31 - 1)
        for field in (
            "context",
            "dual_stack",
            "register_ring_fd",
            "zero_copy_send",
            "napi_prefer_busy_poll",
        ):
            check(isinstance(getattr(self, field), bool), field, "must be True or False")
        return found

    def _cq_size(self) -> int:
        if _is_int(self.cq_entries) and self.cq_entries is not None:
            return max(self.cq_entries, 1)
        return 2 * _round_up(self.ring_entries)

    def replace(self, **changes: object) -> ServerConfig:
        """A copy with some values changed, checked anew."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


def given(config: ServerConfig | None) -> ServerConfig:
    """`config`, or the defaults for None; raises TypeError for anything else."""
    if config is None:
        return ServerConfig()
    if not isinstance(config, ServerConfig):
        raise TypeError(f"config must be an ioxide.ServerConfig, not {config!r}")
    return config
