# SPDX-License-Identifier: MIT
"""What a reactor has counted so far, as one snapshot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter


@dataclass(frozen=True, slots=True)
class Counters:
    """Counts since the reactor started; those named ``*_now`` are what there is at this moment.

    Each is a plain integer bumped on the reactor's thread; a snapshot may be taken from any thread.
    """

    # Connections
    accepts: int = 0
    """Connections taken."""
    adoptions: int = 0
    """Connections that asyncio had connected or accepted, taken over for its transports."""
    accepts_shed: int = 0
    """Connections closed at once: the cap was reached, or there was no memory."""
    accept_pauses: int = 0
    """Times a listener was parked because of EMFILE, ENFILE, ENOBUFS or ENOMEM."""
    accept_rearms: int = 0
    """Multishot accepts that the kernel ended."""
    accept_wakes: int = 0
    """Times that a listener which other processes may hold (``create_server(sock=...)``) was found
    ready, and one connection asked for."""
    accept_misses: int = 0
    """Of these, times that there was none any more: another process had been faster."""
    closes: int = 0
    """Connections whose descriptor was closed."""
    closes_eof: int = 0
    """Of these, ended in order: by FIN both ways, or by ours when the peer had ended before. This
    and the six that follow add up to `closes`; what happened first to a connection counts."""
    closes_error: int = 0
    """Of these, by the peer's reset, the loss of the peer, or for want of memory."""
    closes_read_timeout: int = 0
    """Of these, by `ServerConfig.read_timeout_ms`."""
    closes_send_timeout: int = 0
    """Of these, by `ServerConfig.send_timeout_ms`."""
    closes_fault: int = 0
    """Of these, because the handler raised or could not be started."""
    closes_abort: int = 0
    """Of these, by `Connection.abort()`."""
    closes_stop: int = 0
    """Of these, because the reactor stopped before they had ended by themselves."""
    aborts: int = 0
    """Of these, cut off with RST: timeout, `abort()`, stop."""
    read_timeouts: int = 0
    """Read clocks that ran out, of parked reads and of a peer's FIN after ours."""
    send_timeouts: int = 0
    """Send clocks that ran out, and peers that the kernel gave up after our FIN."""

    # Bytes
    bytes_received: int = 0
    """Bytes that completions of receives brought."""
    bytes_unread: int = 0
    """Of these, thrown away: still unread when the connection ended, or come after our close."""
    bytes_sent: int = 0
    """Bytes that completions of sends said the kernel had taken."""
    bytes_unsent: int = 0
    """Bytes written to connections that ended before the kernel had taken them."""

    # Receive
    recv_rearms: int = 0
    """Receives armed again: after a wait for a buffer, or because the kernel had ended them."""
    recv_marks: int = 0
    """Of these, receives that may have slept at an urgent mark (IOX-ERR-016)."""
    recv_enobufs: int = 0
    """Receives parked because no buffer was left."""
    recv_bundles: int = 0
    """Completions that spanned more than one buffer."""
    recv_appends: int = 0
    """Completions that went on in a part-filled buffer (incremental)."""
    recv_pauses: int = 0
    """Receives paused because the connection's queue was full, or because buffers had run short
    while it held unread bytes."""
    recv_copies: int = 0
    """Runs of bytes that were copied out of shared buffers because these had run short."""

    # Send
    sends: int = 0
    """Sends submitted, of any kind."""
    sends_silent: int = 0
    """Of these, SENDs that nobody waited for, which have a completion only where the kernel does
    not take all of their bytes at once (IOSQE_CQE_SKIP_SUCCESS, Linux 5.17)."""
    sends_vectored: int = 0
    """Of these, messages, SENDMSG or SENDMSG_ZC: of several slabs (`WriteOverflow.SEGMENTED`), or
    of bytes that were not copied."""
    sends_zc: int = 0
    """Of these, zero-copy ones that took the memory; each has one notification."""
    zc_fallbacks: int = 0
    """SEND_ZC that was refused, for want of memory to pin (RLIMIT_MEMLOCK), and done as SEND."""
    zc_notifs: int = 0
    """Notifications that the kernel let go of a SEND_ZC's memory."""
    zc_copied: int = 0
    """Of these, telling that it had copied after all (6.2), as always on loopback."""
    partial_sends: int = 0
    """Of these, followed by another for what was left."""
    writes_held: int = 0
    """Writes that were not copied: large `bytes`, sent from where they are."""
    writes_leaked: int = 0
    """Of these, those whose bytes are kept for ever, because the ring ended without the completion
    of the send that reads them."""

    # Tasks
    wakeups: int = 0
    """Parked tasks resumed; in the default mode inline, inside the tick."""
    wakeup_faults: int = 0
    """Resumptions that raised."""

    # Ring
    enters: int = 0
    """io_uring_enter(2) calls."""
    enters_timed: int = 0
    """Of these, waits with a deadline: of a clock, a timer or a ticker."""
    enter_eintr: int = 0
    """Enters that a signal interrupted (EINTR)."""
    enter_eagain: int = 0
    """Enters for which the kernel had no memory (EAGAIN); what was staged goes with the next."""
    enter_ebusy: int = 0
    """Enters refused because completions had overflowed (EBUSY); likewise."""
    cqes: int = 0
    """Completions reaped."""
    cq_overflow_events: int = 0
    """Batches that found the completion queue overflowed."""
    cqes_dropped: int = 0
    """Completions that the kernel lost for want of memory (cq_off.overflow); those that it kept
    aside until there was room, as it always tries to, are no loss and not among them."""
    stale_cqes: int = 0
    """Completions of a connection that is gone."""
    unknown_cqes: int = 0
    """Completions of no known kind, slot or buffer."""
    sq_full_flushes: int = 0
    """Submissions forced early by a full submission queue."""

    # Wakes from other threads
    wake_writes: int = 0
    """eventfd writes."""
    wake_cqes: int = 0
    """Reads of the eventfd that completed; each one is armed anew."""
    wakes_coalesced: int = 0
    """Wakes that found one already pending."""
    poll_rearms: int = 0
    """Polls of the sockets that the asyncio loop itself watches; each one is armed anew."""

    # Calls between threads
    handoffs: int = 0
    """Times a worker was told of tasks to resume or to start (the pool modes)."""
    foreign_writes: int = 0
    """`Connection.write_threadsafe()` calls that were queued."""
    foreign_flushes: int = 0
    """`Connection.flush_threadsafe()` calls that were queued."""
    foreign_closes: int = 0
    """`Connection.close_threadsafe()` calls that were queued."""
    foreign_returns: int = 0
    """Receive buffers given back by another thread."""
    foreign_drops: int = 0
    """Queued writes that were dropped: their connection had ended when the reactor took them."""

    # Memory
    memory_faults: int = 0
    """Operations that ended with EFAULT: memory of theirs was given up too early. Always 0."""
    memory_rests: int = 0
    """Receives and sends that the kernel had no memory for: tried again after 10 ms."""
    slab_hits: int = 0
    """Write slabs taken from those at rest."""
    slab_misses: int = 0
    """Write slabs that had to be mapped."""
    slab_grows: int = 0
    """Write slabs that were made larger while they held bytes (`WriteOverflow.GROW`)."""

    # Python side
    posts: int = 0
    """Callbacks handed over with `post()` that have run, or been begun."""
    callback_faults: int = 0
    """Posted callbacks, done-callbacks and callbacks of the loop (``call_soon()``) that raised."""
    task_faults: int = 0
    """Tasks and futures whose exception nobody took, as asyncio reports them, and tasks that were
    destroyed pending."""
    handler_faults: int = 0
    """Handlers that ended by an exception of their own."""
    timer_ticks: int = 0
    """Calls of tickers' callbacks (`Reactor.add_ticker()`)."""
    ticker_faults: int = 0
    """Of these, those that raised; the ticker goes on."""

    stalls: int = 0
    """Times that callbacks kept the reactor, or a worker of the pool modes, for longer than
    `ServerConfig.stall_warning_ms`."""

    # Gauges
    connections_now: int = 0
    """Connections whose descriptor is open."""
    starved_now: int = 0
    """Of these, those whose receive waits for a buffer."""
    draining_sends_now: int = 0
    """Of these, those that are closed or aborted and held until the kernel is done sending."""
    buffers_held_now: int = 0
    """Receive buffers that hold unread or lent bytes."""
    recv_copied_bytes_now: int = 0
    """Memory of received bytes that were copied out of the shared buffers, unread or lent."""
    groups_free_now: int = 0
    """Incremental mode: connections that can still be taken."""
    slices_lent_now: int = 0
    """Runs of received bytes that `Connection.read()` has lent out."""
    listeners_armed_now: int = 0
    """Listeners whose accept is with the kernel."""
    slab_bytes_now: int = 0
    """Memory mapped for write slabs, in use or at rest."""
    held_bytes_now: int = 0
    """Written bytes that were not copied, and are kept alive until they are sent."""

    @classmethod
    def sum(cls, parts: Iterable[Counters]) -> Counters:
        """The counters of several reactors added up."""
        snapshots = list(parts)
        if len(snapshots) == 1:
            return snapshots[0]
        return cls(*map(sum, zip(*map(_values, snapshots), strict=True)))


_values = attrgetter(*Counters.__slots__)
"""All counts of a snapshot, in the order of the fields."""
