/* SPDX-License-Identifier: MIT */
/* What a reactor counts. */
#ifndef IOX_TALLY_H
#define IOX_TALLY_H

#include <stdint.h>

/*
 * Counted on the reactor thread, read from any (a torn read is impossible: aligned 64-bit words
 * under the GIL).  The order here is the order of ioxide.Counters.
 */
#define IOX_COUNTERS(X)                                                                        \
	X(accepts)            /* connections taken */                                          \
	X(adoptions)          /* connected descriptors taken over from asyncio */              \
	X(accepts_shed)       /* closed at once: the cap was reached, or no memory */          \
	X(accept_pauses)      /* listeners parked by EMFILE, ENFILE, ENOBUFS or ENOMEM */      \
	X(accept_rearms)      /* multishot accepts ended by the kernel and armed again */      \
	X(accept_wakes)       /* a listener that others may hold was ready: one accept4(2) */  \
	X(accept_misses)      /* of these, found nobody: another process was faster */         \
	X(closes)             /* connections whose descriptor was closed */                    \
	X(closes_eof)         /* of these, ended in order: FIN both ways, or reading was over */ \
	X(closes_error)       /* by a reset, a lost peer, or for want of memory */             \
	X(closes_read_timeout)                                                                 \
	X(closes_send_timeout)                                                                 \
	X(closes_fault)       /* the handler raised, or could not be started */                \
	X(closes_abort)       /* by abort() */                                                 \
	X(closes_stop)        /* what was left when the reactor stopped */                     \
	X(aborts)             /* of these, cut off: timeout, abort(), stop */                  \
	X(read_timeouts)      /* read clocks that ran out */                                   \
	X(send_timeouts)      /* send clocks, and the kernel's on a FIN's way, that ran out */ \
	X(bytes_received)                                                                      \
	X(bytes_unread)       /* of these received, thrown away with nobody to read them */     \
	X(bytes_sent)                                                                          \
	X(bytes_unsent)       /* staged on connections that ended before they were taken */     \
	X(recv_rearms)        /* multishot receives armed again */                             \
	X(recv_marks)         /* of these, because they slept at an urgent mark */             \
	X(recv_enobufs)       /* receives parked because no buffer was left */                 \
	X(recv_bundles)       /* completions that spanned more than one buffer */              \
	X(recv_appends)       /* completions that went on in a part-filled buffer */           \
	X(recv_pauses)        /* receives paused: their queue was full, or buffers were short */ \
	X(recv_copies)        /* runs copied out of shared buffers because these were short */ \
	X(sends)              /* sends submitted, of any kind */                               \
	X(sends_silent)       /* of these, with a completion only where they fail */          \
	X(sends_vectored)     /* of these, messages: several slabs, or held bytes (SENDMSG, _ZC) */ \
	X(sends_zc)           /* of these, zero-copy ones that took the memory */              \
	X(zc_fallbacks)       /* SEND_ZC refused and done again as SEND */                     \
	X(zc_notifs)          /* notifications of SEND_ZC */                                   \
	X(zc_copied)          /* of these, telling that the kernel copied after all (6.2) */   \
	X(partial_sends)      /* of these, continued after a short result */                   \
	X(writes_held)        /* writes that were not copied: sent from the writer's own bytes */ \
	X(writes_leaked)      /* of these, kept for ever: the ring ended before they were sent */ \
	X(wakeups)            /* parked tasks resumed */                                       \
	X(wakeup_faults)      /* resumptions that raised */                                    \
	X(enters)             /* io_uring_enter(2) calls */                                    \
	X(enters_timed)       /* of these, waits with a deadline: clock, timer, ticker */      \
	X(enter_eintr)                                                                         \
	X(enter_eagain)                                                                        \
	X(enter_ebusy)                                                                         \
	X(cqes)               /* completions reaped */                                         \
	X(cq_overflow_events) /* batches that found IORING_SQ_CQ_OVERFLOW set */               \
	X(cqes_dropped)       /* completions the kernel had no memory to keep */               \
	X(stale_cqes)         /* completions of a connection that is gone */                   \
	X(unknown_cqes)       /* completions of no known kind, slot or buffer */               \
	X(sq_full_flushes)    /* submissions forced early by a full submission queue */        \
	X(wake_writes)        /* eventfd writes */                                             \
	X(wake_cqes)          /* eventfd reads completed */                                    \
	X(wakes_coalesced)    /* wakes that found one already pending */                       \
	X(poll_rearms)        /* polls of the loop's epoll instance that fired */              \
	X(foreign_writes)     /* writes queued by other threads */                             \
	X(foreign_flushes)    /* flushes queued by other threads */                            \
	X(foreign_closes)     /* closes queued by other threads */                             \
	X(foreign_returns)    /* buffers given back by other threads */                        \
	X(handoffs)           /* times a worker was told of tasks to resume (pool modes) */    \
	X(foreign_drops)      /* queued writes whose connection had ended when they ran */     \
	X(memory_faults)      /* operations that ended with EFAULT: memory given up too early */ \
	X(memory_rests)       /* receives and sends that the kernel had no memory for: tried again */ \
	X(slab_hits)                                                                           \
	X(slab_misses)                                                                         \
	X(slab_grows)

struct iox_counters {
#define X(name) uint64_t name;
	IOX_COUNTERS(X)
#undef X
};

#endif
