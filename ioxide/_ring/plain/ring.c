/* SPDX-License-Identifier: MIT */
#include "ring.h"

#include "failing.h"
#include "group.h"
#include "pages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/*
 * How many completions stay in the queue, see iox_ring_taken().  That many more may come in one enter, and a
 * connection whose peer sends without end may bring as many before its receive can be paused.
 */
#define CQ_KEPT 63

static int queue_init(unsigned entries, struct io_uring *uring, const struct io_uring_params *wanted)
{
	struct io_uring_params params;
	int ret, attempt = 0;

	do {
		params = *wanted;
		ret = IOX_MAY_FAIL(IOX_FAILING_SETUP, io_uring_queue_init_params(entries, uring, &params));
	} while (ret == -ENOMEM && iox_pages_wait(attempt++));
	return ret;
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

	ring->cq_kept = ring->uring.cq.ring_entries / 8;
	if (ring->cq_kept > CQ_KEPT)
		ring->cq_kept = CQ_KEPT;
	ring->enter_fd = ring->uring.ring_fd;
	/*
	 * Without the flag a thread that waits in a ring counts as waiting for a disk, and an idle server shows
	 * as 100 % iowait (IOX-ERR-017).  Kernels before 6.15 refuse the flag.
	 */
	if (ring->uring.features & IOX_FEAT_NO_IOWAIT)
		ring->enter_flags |= IOX_ENTER_NO_IOWAIT;
	ring->wants_index = register_fd;
	iox_ring_take_index(ring);
	return ring;
}

/*
 * IORING_REGISTER_RING_FDS (5.18) saves the descriptor look-up of every enter.  Sixteen fit in a thread;
 * the seventeenth gets EBUSY and simply keeps using its descriptor.  Not by liburing, which gives the
 * index back when the ring is closed: on another thread than the ring's that is refused (-EEXIST).
 */
void iox_ring_take_index(iox_ring *ring)
{
	struct io_uring_rsrc_update update = { .offset = -1U, .data = (uint64_t)ring->uring.ring_fd };

	if (!ring->wants_index || ring->enter_flags & IOX_ENTER_REGISTERED_RING)
		return;
	if (IOX_MAY_FAIL(IOX_FAILING_REGISTER,
			 iox_sys_register(ring->uring.ring_fd, IOX_REGISTER_RING_FDS, &update, 1)) != 1)
		return;
	ring->enter_fd = (int)update.offset;
	ring->enter_flags |= IOX_ENTER_REGISTERED_RING;
}

void iox_ring_drop_index(iox_ring *ring)
{
	struct io_uring_rsrc_update update = { .offset = (unsigned)ring->enter_fd };

	if (!(ring->enter_flags & IOX_ENTER_REGISTERED_RING))
		return;
	IOX_MAY_FAIL(IOX_FAILING_REGISTER,
		     iox_sys_register(ring->uring.ring_fd, IOX_UNREGISTER_RING_FDS, &update, 1));
	ring->enter_fd = ring->uring.ring_fd;
	ring->enter_flags &= ~IOX_ENTER_REGISTERED_RING;
}

/*
 * No feature bit tells of IOU_PBUF_RING_INC (6.12): register a group of one buffer, and end it.  -EINVAL
 * from a kernel that does not know it.
 */
int iox_ring_incremental(iox_ring *ring)
{
	struct iox_group *group = iox_group_new(1, 64, true, false);
	int ret;

	if (!group)
		return -ENOMEM;
	ret = iox_group_register_waiting(group, ring->uring.ring_fd, UINT16_MAX);
	iox_group_unregister(group, ring->uring.ring_fd);
	iox_group_unref(group);
	return ret;
}

/* IORING_REGISTER_NAPI (6.9): -EINVAL before. */
int iox_ring_napi(iox_ring *ring, unsigned busy_poll_us, bool prefer)
{
	struct iox_napi napi = { .busy_poll_to = busy_poll_us, .prefer_busy_poll = prefer };

	return IOX_MAY_FAIL(IOX_FAILING_REGISTER,
			    iox_sys_register(ring->uring.ring_fd, IOX_REGISTER_NAPI, &napi, 1));
}

/* IORING_REGISTER_PROBE (5.6): whether this kernel has an opcode. */
bool iox_ring_knows(iox_ring *ring, unsigned opcode)
{
	struct io_uring_probe *probe = io_uring_get_probe_ring(&ring->uring);
	bool known = probe && io_uring_opcode_supported(probe, (int)opcode);

	io_uring_free_probe(probe);
	return known;
}

void iox_ring_info(const iox_ring *ring, struct iox_ring_info *info)
{
	info->fd = ring->uring.ring_fd;
	info->features = ring->uring.features;
	info->setup_flags = ring->uring.flags;
	info->sq_entries = ring->uring.sq.ring_entries;
	info->cq_entries = ring->uring.cq.ring_entries;
	info->fd_registered = ring->enter_flags & IOX_ENTER_REGISTERED_RING;
}

void iox_ring_close(iox_ring *ring, bool here)
{
	if (here)
		iox_ring_drop_index(ring);
	io_uring_queue_exit(&ring->uring);
	free(ring->record);
	free(ring);
}

unsigned iox_ring_unsubmitted(const iox_ring *ring)
{
	/* From the head the kernel has consumed, so entries left by a refused enter count again. */
	return ring->uring.sq.sqe_tail - __atomic_load_n(ring->uring.sq.khead, __ATOMIC_ACQUIRE);
}

static int enter(iox_ring *ring, unsigned submit, unsigned wait_nr, unsigned flags, int64_t timeout_ns,
		 unsigned min_wait_us)
{
	struct iox_timespec ts;
	struct iox_getevents_arg arg = { 0 };
	void *argp = NULL;
	size_t size = _NSIG / 8;

	wait_nr += ring->cq_head - *ring->uring.cq.khead; /* those that were taken in, and left there */
	flags |= ring->enter_flags;
	if (timeout_ns >= 0) {
		ts.tv_sec = timeout_ns / 1000000000;
		ts.tv_nsec = timeout_ns % 1000000000;
		arg.sigmask_sz = _NSIG / 8;
		arg.min_wait_usec = min_wait_us; /* 6.12; 0 elsewhere, see Driver */
		arg.ts = (uint64_t)(uintptr_t)&ts;
		argp = &arg;
		size = sizeof(arg);
		flags |= IOX_ENTER_EXT_ARG;
	}
	return IOX_MAY_FAIL(IOX_FAILING_ENTER,
			    iox_sys_enter(ring->enter_fd, submit, wait_nr, flags, argp, size));
}

int iox_ring_enter(iox_ring *ring, unsigned wait_nr, unsigned flags, int64_t timeout_ns,
		   unsigned min_wait_us)
{
	struct io_uring_sq *sq = &ring->uring.sq;

	if (ring->record)
		iox_record_submissions(ring->record, &ring->uring);
	__atomic_store_n(sq->ktail, sq->sqe_tail, __ATOMIC_RELEASE);
	sq->sqe_head = sq->sqe_tail;
	return enter(ring, iox_ring_unsubmitted(ring), wait_nr, flags, timeout_ns, min_wait_us);
}

/* Submits nothing; waits for a completion, and no longer than this. */
int iox_ring_wait(iox_ring *ring, int64_t timeout_ns)
{
	return enter(ring, 0, 1, IOX_ENTER_GETEVENTS, timeout_ns, 0);
}

struct io_uring_sqe *iox_ring_sqe(iox_ring *ring)
{
	return io_uring_get_sqe(&ring->uring);
}
