/* SPDX-License-Identifier: MIT */
/*
 * The smallest ring that can be asked questions, for ioxide.probe() and the kernel-gated tests.
 *
 * Everything is the kernel's ABI by raw system calls: neither liburing nor <linux/io_uring.h> is
 * needed, so that a build on old headers can still ask a new kernel about new things, and a setup
 * flag that changes the layout of the rings (NO_SQARRAY, 6.6) works whatever liburing knows of it.
 * Nothing here is on the reactor's path.  No function raises or prints: results are what the
 * kernel returned, or -errno.
 */
#ifndef IOX_PROBE_H
#define IOX_PROBE_H

#include <stddef.h>
#include <stdint.h>

/* struct io_uring_sqe, 64 bytes, with the unions' widest neutral names. */
struct iox_probe_sqe {
	uint8_t opcode;
	uint8_t flags;
	uint16_t ioprio;
	int32_t fd;
	uint64_t off;
	uint64_t addr;
	uint32_t len;
	uint32_t op_flags; /* msg_flags, timeout_flags, accept_flags, msg_ring_flags, ... */
	uint64_t user_data;
	uint16_t buf_group;
	uint16_t personality;
	uint32_t file_index;
	uint64_t addr3;
	uint64_t pad2;
};

/* struct io_uring_cqe */
struct iox_probe_cqe {
	uint64_t user_data;
	int32_t res;
	uint32_t flags;
};

struct iox_probe_ring {
	int fd;               /* -1 when closed */
	uint32_t setup_flags; /* as asked for */
	uint32_t features;    /* as declared by the kernel, IOX_FEAT_* */
	uint32_t sq_entries;  /* as given by the kernel */
	uint32_t cq_entries;
	uint64_t elapsed_us;  /* how long the last enter took, CLOCK_MONOTONIC */

	/* private */
	uint32_t *sq_head, *sq_tail, *sq_flags, *sq_array;
	uint32_t *cq_head, *cq_tail;
	uint32_t sq_mask, cq_mask;
	struct iox_probe_sqe *sqes;
	struct iox_probe_cqe *cqes;
	void *sq_map, *cq_map;
	size_t sq_map_size, cq_map_size, sqes_size;
};

/* One provided-buffer ring and the memory of its buffers. */
struct iox_probe_buffers {
	uint16_t group;
	uint32_t entries;
	uint32_t size;  /* bytes of one buffer */
	uint8_t *data;  /* entries * size bytes */

	/* private */
	void *ring;
	size_t ring_size, data_size;
};

/* Opcodes the probe uses; <linux/io_uring.h> has them as enumerators, some only since 5.18 or 6.0. */
enum {
	IOX_PROBE_OP_NOP = 0,
	IOX_PROBE_OP_POLL_ADD = 6,
	IOX_PROBE_OP_TIMEOUT = 11,
	IOX_PROBE_OP_ACCEPT = 13,
	IOX_PROBE_OP_ASYNC_CANCEL = 14,
	IOX_PROBE_OP_SEND = 26,
	IOX_PROBE_OP_RECV = 27,
	IOX_PROBE_OP_MSG_RING = 40,          /* 5.18 */
	IOX_PROBE_OP_SEND_ZC = 47,           /* 6.0 */
	IOX_PROBE_OP_RECV_ZC = 58,           /* 6.15 */
	IOX_PROBE_SQE_BUFFER_SELECT = 1 << 5, /* sqe->flags, 5.7 */
	IOX_PROBE_MSG_RING_FLAGS_PASS = 1 << 1, /* sqe->msg_ring_flags, 6.3 */
};

/* 0, or -errno of io_uring_setup(2) or mmap(2); cq_entries 0 lets the kernel choose. */
int iox_probe_ring_open(struct iox_probe_ring *ring, unsigned entries, unsigned flags,
			unsigned cq_entries);

/* Cancels what is in flight, then closes; safe on a ring that never opened. */
void iox_probe_ring_close(struct iox_probe_ring *ring);

/* Copies one SQE into the queue; -EBUSY when it is full. */
int iox_probe_push(struct iox_probe_ring *ring, const struct iox_probe_sqe *sqe);

/*
 * Submits all that was pushed and waits for wait_nr completions, never longer than timeout_us
 * (and, with min_wait_us, as IORING_FEAT_MIN_TIMEOUT says).  `fd` is the ring's descriptor, or
 * its registered index when `flags` has IOX_ENTER_REGISTERED_RING.  Sets ring->elapsed_us.
 */
int iox_probe_enter(struct iox_probe_ring *ring, int fd, unsigned wait_nr, unsigned flags,
		    uint64_t timeout_us, uint32_t min_wait_us);

/*
 * As iox_probe_enter(), but how long to wait is said by the entry at `offset` of the region that was
 * registered for wait arguments (IORING_REGISTER_MEM_REGION, 6.13).
 */
int iox_probe_enter_by_region(struct iox_probe_ring *ring, unsigned wait_nr, uint64_t offset);

/*
 * Writes one SQE to the queue's first place and submits it with the queue's tail left at zero, as a
 * ring with IOX_SETUP_SQ_REWIND (7.0) is used; waits for a completion, never longer than timeout_us.
 */
int iox_probe_enter_first(struct iox_probe_ring *ring, const struct iox_probe_sqe *sqe,
			  uint64_t timeout_us);

/* 1 and one completion, or 0 when the completion queue is empty; no system call. */
int iox_probe_reap(struct iox_probe_ring *ring, struct iox_probe_cqe *out);

/* How many completions are there to be seen without a system call. */
unsigned iox_probe_ready(const struct iox_probe_ring *ring);

/* The SQ ring's flags word (IOX_SQ_CQ_OVERFLOW, ...). */
unsigned iox_probe_sq_flags(const struct iox_probe_ring *ring);

/* io_uring_register(2) on this ring. */
int iox_probe_register(struct iox_probe_ring *ring, unsigned opcode, void *arg, unsigned nr);

/* 1 when IORING_REGISTER_PROBE says the opcode is supported, 0 when not, -errno when it failed. */
int iox_probe_has_opcode(struct iox_probe_ring *ring, unsigned opcode);

/* The new index in the calling thread's table of registered rings, or -errno (5.18). */
int iox_probe_ring_fd_register(struct iox_probe_ring *ring);

/* The number of indices given up (1), or -errno. */
int iox_probe_ring_fd_unregister(struct iox_probe_ring *ring, int index);

/*
 * Registers `entries` (a power of two) buffers of `size` bytes, all given to the kernel.  With
 * min_left, an incremental buffer with fewer bytes left is not used any more.
 */
int iox_probe_buffers_open(struct iox_probe_ring *ring, struct iox_probe_buffers *buffers,
			   unsigned group, unsigned entries, unsigned size, unsigned flags,
			   unsigned min_left);

/* Gives buffer `bid` back to the kernel at the tail. */
void iox_probe_buffers_give(struct iox_probe_buffers *buffers, unsigned bid);

/* Unregisters the group; the memory stays until iox_probe_buffers_free(). */
int iox_probe_buffers_unregister(struct iox_probe_ring *ring, struct iox_probe_buffers *buffers);

/* Frees the memory; call it only after the ring is closed. */
void iox_probe_buffers_free(struct iox_probe_buffers *buffers);

/*
 * IORING_REGISTER_NAPI and _UNREGISTER_NAPI (6.9) with busy_poll_to in microseconds.  The kernel
 * writes the previous values back on both calls.
 */
int iox_probe_napi(struct iox_probe_ring *ring, int enable, uint32_t *busy_poll_to,
		   uint8_t *prefer_busy_poll);

/* unshare(2) and setns(2) for the calling thread; os.unshare() came with Python 3.12 only. */
int iox_probe_unshare_net(int with_user_namespace);
int iox_probe_setns_net(int fd);

#endif
