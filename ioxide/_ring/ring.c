/* SPDX-License-Identifier: MIT */
#include "ring.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

static void *map_pages(size_t bytes)
{
	void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return mem == MAP_FAILED ? NULL : mem;
}

/*
 * The memlock charge of a closed ring is given back asynchronously, so a ring opened right after
 * another one was closed can see ENOMEM for a moment: wait 5, 10, 20, 40, 80 ms before giving up.
 */
static int queue_init(unsigned entries, struct io_uring *uring, const struct io_uring_params *wanted)
{
	struct timespec pause = { 0, 5 * 1000 * 1000 };
	int ret;

	for (int attempt = 0;; attempt++) {
		struct io_uring_params params = *wanted;

		ret = io_uring_queue_init_params(entries, uring, &params);
		if (ret != -ENOMEM || attempt == 5)
			return ret;
		nanosleep(&pause, NULL);
		pause.tv_nsec *= 2;
	}
}

iox_ring *iox_ring_open(unsigned sq_entries, unsigned cq_entries, bool register_fd, int *error)
{
	struct io_uring_params params;
	iox_ring *ring = calloc(1, sizeof(*ring));

	if (!ring) {
		*error = -ENOMEM;
		return NULL;
	}
	memset(&params, 0, sizeof(params));
	params.flags = IOX_SETUP_SINGLE_ISSUER | IOX_SETUP_DEFER_TASKRUN | IOX_SETUP_SUBMIT_ALL |
		       IOX_SETUP_CQSIZE;
	params.cq_entries = cq_entries;
	*error = queue_init(sq_entries, &ring->uring, &params);
	if (*error < 0) {
		free(ring);
		return NULL;
	}
	/*
	 * liburing from 2.4 on fills the index array once, 2.3 on each flush: we flush ourselves.
	 * From 2.6 on it first asks for a ring without that array (IORING_SETUP_NO_SQARRAY, 6.6).
	 */
	for (unsigned i = 0; ring->uring.sq.array && i < ring->uring.sq.ring_entries; i++)
		ring->uring.sq.array[i] = i;

	ring->enter_fd = ring->uring.ring_fd;
	/*
	 * IORING_REGISTER_RING_FDS (5.18) saves the descriptor look-up of every enter.  Sixteen fit in
	 * a thread; the seventeenth gets EBUSY and simply keeps using its descriptor.
	 */
	if (register_fd && io_uring_register_ring_fd(&ring->uring) == 1) {
		ring->enter_fd = ring->uring.enter_ring_fd;
		ring->enter_flags = IOX_ENTER_REGISTERED_RING;
	}
	return ring;
}

int iox_ring_provide(iox_ring *ring, unsigned count, unsigned size)
{
	struct iox_buf_reg reg;
	int ret;

	ring->buf_count = count;
	ring->buf_size = size;
	ring->buf_ring_bytes = (size_t)count * sizeof(struct iox_buf);
	ring->buf_pool_bytes = (size_t)count * size;
	ring->buf_ring = map_pages(ring->buf_ring_bytes);
	ring->buf_pool = map_pages(ring->buf_pool_bytes);
	if (!ring->buf_ring || !ring->buf_pool)
		return -ENOMEM;

	memset(&reg, 0, sizeof(reg));
	reg.ring_addr = (uint64_t)(uintptr_t)ring->buf_ring;
	reg.ring_entries = count;
	reg.bgid = IOX_SHARED_GROUP;
	ret = iox_sys_register(ring->uring.ring_fd, IOX_REGISTER_PBUF_RING, &reg, 1);
	if (ret < 0)
		return ret;
	ring->buffers_registered = true;
	for (unsigned bid = 0; bid < count; bid++)
		iox_ring_recycle(ring, bid);
	iox_ring_publish(ring);
	return 0;
}

void iox_ring_info(const iox_ring *ring, struct iox_ring_info *info)
{
	info->fd = ring->uring.ring_fd;
	info->features = ring->uring.features;
	info->setup_flags = ring->uring.flags;
	info->sq_entries = ring->uring.sq.ring_entries;
	info->cq_entries = ring->uring.cq.ring_entries;
	info->buf_count = ring->buf_count;
	info->buf_size = ring->buf_size;
	info->fd_registered = ring->enter_flags & IOX_ENTER_REGISTERED_RING;
}

void iox_ring_shut(iox_ring *ring)
{
	/*
	 * Closing a ring is asynchronous: the kernel may hold its pages for a while.  So the buffer
	 * ring is unregistered first, which is synchronous, and only then is its memory given up.
	 */
	if (ring->buffers_registered) {
		struct iox_buf_reg reg = { .bgid = IOX_SHARED_GROUP };

		iox_sys_register(ring->uring.ring_fd, IOX_UNREGISTER_PBUF_RING, &reg, 1);
		ring->buffers_registered = false;
	}
	if (ring->enter_flags & IOX_ENTER_REGISTERED_RING) {
		io_uring_unregister_ring_fd(&ring->uring);
		ring->enter_flags = 0;
	}
	if (ring->uring.ring_fd >= 0) {
		io_uring_queue_exit(&ring->uring);
		ring->uring.ring_fd = -1;
		ring->enter_fd = -1;
	}
	if (ring->buf_ring) {
		munmap(ring->buf_ring, ring->buf_ring_bytes);
		ring->buf_ring = NULL;
	}
}

void iox_ring_free(iox_ring *ring)
{
	iox_ring_shut(ring);
	if (ring->buf_pool)
		munmap(ring->buf_pool, ring->buf_pool_bytes);
	free(ring);
}

unsigned iox_ring_unsubmitted(const iox_ring *ring)
{
	/* From the head the kernel has consumed, so entries left by a refused enter count again. */
	return ring->uring.sq.sqe_tail - __atomic_load_n(ring->uring.sq.khead, __ATOMIC_ACQUIRE);
}

int iox_ring_enter(iox_ring *ring, unsigned wait_nr, unsigned flags, int64_t timeout_ns)
{
	struct io_uring_sq *sq = &ring->uring.sq;
	struct iox_timespec ts;
	struct iox_getevents_arg arg = { 0 };
	void *argp = NULL;
	size_t size = _NSIG / 8;

	__atomic_store_n(sq->ktail, sq->sqe_tail, __ATOMIC_RELEASE);
	sq->sqe_head = sq->sqe_tail;
	flags |= ring->enter_flags;
	if (timeout_ns >= 0) {
		ts.tv_sec = timeout_ns / 1000000000;
		ts.tv_nsec = timeout_ns % 1000000000;
		arg.sigmask_sz = _NSIG / 8;
		arg.ts = (uint64_t)(uintptr_t)&ts;
		argp = &arg;
		size = sizeof(arg);
		flags |= IOX_ENTER_EXT_ARG;
	}
	return iox_sys_enter(ring->enter_fd, iox_ring_unsubmitted(ring), wait_nr, flags, argp, size);
}

struct io_uring_sqe *iox_ring_sqe(iox_ring *ring)
{
	return io_uring_get_sqe(&ring->uring);
}
