/* SPDX-License-Identifier: MIT */
/*
 * One io_uring with its provided-buffer ring.  Plain C: knows neither Python nor connections.
 *
 * Calls return 0 or a positive result, or -errno; never -1.
 */
#ifndef IOX_RING_H
#define IOX_RING_H

#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "uapi.h"

/* The group id of the shared receive buffers; per-connection rings start at 2. */
#define IOX_SHARED_GROUP 1

struct iox_ring {
	struct io_uring uring;
	int enter_fd;          /* the registered index, or the raw descriptor */
	unsigned enter_flags;  /* IOX_ENTER_REGISTERED_RING, or 0 */
	bool buffers_registered;

	struct iox_buf *buf_ring;
	char *buf_pool;
	size_t buf_ring_bytes, buf_pool_bytes;
	uint32_t buf_count, buf_size;
	uint16_t buf_tail;
};
typedef struct iox_ring iox_ring;

struct iox_ring_info {
	int fd;
	unsigned features, setup_flags, sq_entries, cq_entries, buf_count, buf_size;
	bool fd_registered;
};

iox_ring *iox_ring_open(unsigned sq_entries, unsigned cq_entries, bool register_fd, int *error);
int iox_ring_provide(iox_ring *ring, unsigned count, unsigned size);
void iox_ring_info(const iox_ring *ring, struct iox_ring_info *info);
/* Ends the ring; the pool of receive buffers stays mapped until iox_ring_free(). */
void iox_ring_shut(iox_ring *ring);
void iox_ring_free(iox_ring *ring);

/* Hot path */
struct io_uring_sqe *iox_ring_sqe(iox_ring *ring);
unsigned iox_ring_unsubmitted(const iox_ring *ring);
int iox_ring_enter(iox_ring *ring, unsigned wait_nr, unsigned flags, int64_t timeout_ns);

static inline bool iox_ring_overflowed(const iox_ring *ring)
{
	return __atomic_load_n(ring->uring.sq.kflags, __ATOMIC_RELAXED) & IOX_SQ_CQ_OVERFLOW;
}

static inline unsigned iox_ring_ready(const iox_ring *ring)
{
	return __atomic_load_n(ring->uring.cq.ktail, __ATOMIC_ACQUIRE) - *ring->uring.cq.khead;
}

static inline char *iox_ring_buffer(const iox_ring *ring, uint16_t bid)
{
	return ring->buf_pool + (size_t)bid * ring->buf_size;
}

/* Stages one buffer for the kernel; iox_ring_publish() makes all staged ones visible at once. */
static inline void iox_ring_recycle(iox_ring *ring, uint16_t bid)
{
	struct iox_buf *buf = &ring->buf_ring[ring->buf_tail & (ring->buf_count - 1)];

	buf->addr = (uint64_t)(uintptr_t)iox_ring_buffer(ring, bid);
	buf->len = ring->buf_size;
	buf->bid = bid;
	ring->buf_tail++;
}

static inline void iox_ring_publish(iox_ring *ring)
{
	/* The ring's tail overlays the last two bytes of entry 0 (struct io_uring_buf_ring). */
	__atomic_store_n(&ring->buf_ring[0].resv, ring->buf_tail, __ATOMIC_RELEASE);
}

#endif
