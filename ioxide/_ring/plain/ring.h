/* SPDX-License-Identifier: MIT */
/*
 * One io_uring.  Plain C: knows neither Python nor connections.
 *
 * Calls return 0 or a positive result, or -errno; never -1.
 */
#ifndef IOX_RING_H
#define IOX_RING_H

#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "record.h"
#include "uapi.h"

struct iox_ring {
	struct io_uring uring;
	int enter_fd;          /* the registered index, or the raw descriptor */
	bool wants_index;      /* see iox_ring_take_index() */
	unsigned enter_flags;  /* of each enter: IOX_ENTER_REGISTERED_RING, IOX_ENTER_NO_IOWAIT */
	unsigned cq_head;      /* completions taken in; the kernel's head is behind, see iox_ring_taken() */
	unsigned cq_kept;      /* how far behind, at most */
	struct iox_record *record; /* NULL: nothing is recorded */
};
typedef struct iox_ring iox_ring;

struct iox_ring_info {
	int fd;
	unsigned features, setup_flags, sq_entries, cq_entries;
	bool fd_registered;
};

iox_ring *iox_ring_open(unsigned sq_entries, unsigned cq_entries, bool register_fd, int *error);
void iox_ring_info(const iox_ring *ring, struct iox_ring_info *info);
int iox_ring_incremental(iox_ring *ring);
int iox_ring_napi(iox_ring *ring, unsigned busy_poll_us, bool prefer);
bool iox_ring_knows(iox_ring *ring, unsigned opcode);
/*
 * An index of the calling thread's to enter by, instead of the descriptor, until iox_ring_drop_index().  The
 * thread's table of indices holds the ring's file, so an index that is left behind keeps the ring alive.
 */
void iox_ring_take_index(iox_ring *ring);
void iox_ring_drop_index(iox_ring *ring);
/* here: on the thread that holds an index of it, if any does.  Only closes a descriptor and unmaps. */
void iox_ring_close(iox_ring *ring, bool here);

/* Hot path */
struct io_uring_sqe *iox_ring_sqe(iox_ring *ring);
unsigned iox_ring_unsubmitted(const iox_ring *ring);
int iox_ring_enter(iox_ring *ring, unsigned wait_nr, unsigned flags, int64_t timeout_ns,
		   unsigned min_wait_us);
int iox_ring_wait(iox_ring *ring, int64_t timeout_ns);

static inline bool iox_ring_overflowed(const iox_ring *ring)
{
	return __atomic_load_n(ring->uring.sq.kflags, __ATOMIC_RELAXED) & IOX_SQ_CQ_OVERFLOW;
}

/* Completions the kernel lost because it had no memory to keep them until there was room. */
static inline unsigned iox_ring_dropped(const iox_ring *ring)
{
	return __atomic_load_n(ring->uring.cq.koverflow, __ATOMIC_RELAXED);
}

static inline unsigned iox_ring_ready(const iox_ring *ring)
{
	return __atomic_load_n(ring->uring.cq.ktail, __ATOMIC_ACQUIRE) - ring->cq_head;
}

/*
 * The completions before `head` were taken in.  The kernel is not told of the last k of them: an enter that waits
 * for n completions runs at most max(20, n) pieces of deferred work (6.14, IO_LOCAL_TW_DEFAULT_MAX), so a batch
 * of 64 requests would need four enters.  With k old completions in the queue, waiting for k + 1 is waiting for
 * the next one, and k + 1 may come at once.
 */
static inline void iox_ring_taken(iox_ring *ring, unsigned head)
{
	unsigned *khead = ring->uring.cq.khead;

	ring->cq_head = head;
	if (head - *khead > ring->cq_kept)
		__atomic_store_n(khead, head - ring->cq_kept, __ATOMIC_RELEASE);
}

#endif
