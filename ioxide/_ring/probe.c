/* SPDX-License-Identifier: MIT */
/* See probe.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "probe.h"
#include "uapi.h"

/* mmap(2) offsets of io_uring_setup(2).  The CQ ring has an own offset on every kernel, also where
 * one mapping would do (IORING_FEAT_SINGLE_MMAP, 5.4), so no case distinction is needed. */
#define OFF_SQ_RING 0ULL
#define OFF_CQ_RING 0x8000000ULL
#define OFF_SQES    0x10000000ULL

struct sq_offsets {
	uint32_t head, tail, ring_mask, ring_entries, flags, dropped, array, resv1;
	uint64_t user_addr;
};

struct cq_offsets {
	uint32_t head, tail, ring_mask, ring_entries, overflow, cqes, flags, resv1;
	uint64_t user_addr;
};

/* struct io_uring_params */
struct params {
	uint32_t sq_entries, cq_entries, flags, sq_thread_cpu, sq_thread_idle, features, wq_fd;
	uint32_t resv[3];
	struct sq_offsets sq_off;
	struct cq_offsets cq_off;
};

/* struct io_uring_rsrc_update */
struct rsrc_update {
	uint32_t offset, resv;
	uint64_t data;
};

/* struct io_uring_sync_cancel_reg, 6.0 */
struct sync_cancel {
	uint64_t addr;
	int32_t fd;
	uint32_t flags;
	struct iox_timespec timeout;
	uint8_t opcode, pad[7];
	uint64_t pad2[3];
};

/* struct io_uring_probe with its table; the kernel fills in as many as it has. */
#define PROBE_OPS 256
struct opcode_probe {
	uint8_t last_op, ops_len;
	uint16_t resv;
	uint32_t resv2[3];
	struct {
		uint8_t op, resv;
		uint16_t flags; /* bit 0: supported */
		uint32_t resv2;
	} ops[PROBE_OPS];
};

_Static_assert(sizeof(struct iox_probe_sqe) == 64, "SQE ABI");
_Static_assert(sizeof(struct iox_probe_cqe) == 16, "CQE ABI");
_Static_assert(sizeof(struct params) == 120, "params ABI");
_Static_assert(sizeof(struct sync_cancel) == 64, "sync cancel ABI");
_Static_assert(sizeof(struct iox_buf) == 16, "buffer ABI");
_Static_assert(sizeof(struct iox_buf_reg) == 40, "buffer ring ABI");
_Static_assert(sizeof(struct iox_getevents_arg) == 24, "getevents ABI");
_Static_assert(sizeof(struct iox_reg_wait) == 64, "registered wait ABI");
_Static_assert(sizeof(struct iox_napi) == 16, "NAPI ABI");

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

static void *map(int fd, size_t size, uint64_t offset)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd,
		       (off_t)offset);

	return p == MAP_FAILED ? NULL : p;
}

int iox_probe_ring_open(struct iox_probe_ring *ring, unsigned entries, unsigned flags,
			unsigned cq_entries)
{
	struct params p;
	int fd, error;

	memset(ring, 0, sizeof(*ring));
	ring->fd = -1;
	ring->setup_flags = flags;

	memset(&p, 0, sizeof(p));
	p.flags = flags;
	if (cq_entries) {
		p.flags |= IOX_SETUP_CQSIZE;
		p.cq_entries = cq_entries;
	}
	fd = iox_sys_setup(entries, &p);
	if (fd < 0)
		return fd;
	ring->fd = fd;
	ring->features = p.features;
	ring->sq_entries = p.sq_entries;
	ring->cq_entries = p.cq_entries;

	/* With NO_SQARRAY (6.6) there is no array of indices behind the SQ ring. */
	ring->sq_map_size = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
	if (flags & IOX_SETUP_NO_SQARRAY)
		ring->sq_map_size = p.cq_off.cqes + p.cq_entries * sizeof(struct iox_probe_cqe);
	ring->cq_map_size = p.cq_off.cqes + p.cq_entries * sizeof(struct iox_probe_cqe);
	ring->sqes_size = p.sq_entries * sizeof(struct iox_probe_sqe);
	ring->sq_map = map(fd, ring->sq_map_size, OFF_SQ_RING);
	ring->cq_map = ring->sq_map ? map(fd, ring->cq_map_size, OFF_CQ_RING) : NULL;
	ring->sqes = ring->cq_map ? map(fd, ring->sqes_size, OFF_SQES) : NULL;
	if (!ring->sqes) {
		error = -errno;
		iox_probe_ring_close(ring);
		return error;
	}

	ring->sq_head = (uint32_t *)((char *)ring->sq_map + p.sq_off.head);
	ring->sq_tail = (uint32_t *)((char *)ring->sq_map + p.sq_off.tail);
	ring->sq_flags = (uint32_t *)((char *)ring->sq_map + p.sq_off.flags);
	ring->sq_mask = *(uint32_t *)((char *)ring->sq_map + p.sq_off.ring_mask);
	if (!(flags & IOX_SETUP_NO_SQARRAY))
		ring->sq_array = (uint32_t *)((char *)ring->sq_map + p.sq_off.array);
	ring->cq_head = (uint32_t *)((char *)ring->cq_map + p.cq_off.head);
	ring->cq_tail = (uint32_t *)((char *)ring->cq_map + p.cq_off.tail);
	ring->cq_mask = *(uint32_t *)((char *)ring->cq_map + p.cq_off.ring_mask);
	ring->cqes = (struct iox_probe_cqe *)((char *)ring->cq_map + p.cq_off.cqes);
	return 0;
}

void iox_probe_ring_close(struct iox_probe_ring *ring)
{
	if (ring->fd < 0)
		return;
	if (ring->sqes) {
		/* Closing a ring cancels asynchronously: the kernel could still write into a buffer
		 * that its owner frees right after.  So everything in flight is cancelled first and
		 * waited for, a second at most (6.0; an older kernel refuses and has no multishot
		 * receive either). */
		struct sync_cancel cancel;

		memset(&cancel, 0, sizeof(cancel));
		cancel.fd = -1;
		cancel.flags = IOX_ASYNC_CANCEL_ANY | IOX_ASYNC_CANCEL_ALL;
		cancel.timeout.tv_sec = 1;
		(void)iox_sys_register(ring->fd, IOX_REGISTER_SYNC_CANCEL, &cancel, 1);
		munmap(ring->sqes, ring->sqes_size);
	}
	if (ring->cq_map)
		munmap(ring->cq_map, ring->cq_map_size);
	if (ring->sq_map)
		munmap(ring->sq_map, ring->sq_map_size);
	close(ring->fd);
	ring->fd = -1;
	ring->sqes = NULL;
	ring->cq_map = ring->sq_map = NULL;
}

int iox_probe_push(struct iox_probe_ring *ring, const struct iox_probe_sqe *sqe)
{
	uint32_t tail = *ring->sq_tail;
	uint32_t index = tail & ring->sq_mask;

	if (tail - __atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE) >= ring->sq_entries)
		return -EBUSY;
	ring->sqes[index] = *sqe;
	if (ring->sq_array)
		ring->sq_array[index] = index;
	__atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
	return 0;
}

int iox_probe_enter(struct iox_probe_ring *ring, int fd, unsigned wait_nr, unsigned flags,
		    uint64_t timeout_us, uint32_t min_wait_us)
{
	struct iox_timespec ts = {
		.tv_sec = (int64_t)(timeout_us / 1000000u),
		.tv_nsec = (int64_t)(timeout_us % 1000000u) * 1000,
	};
	struct iox_getevents_arg arg = {
		.min_wait_usec = min_wait_us,
		.ts = (uint64_t)(uintptr_t)&ts,
	};
	unsigned pending = *ring->sq_tail - __atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE);
	uint64_t start = now_us();
	int result;

	if (!(ring->features & IOX_FEAT_EXT_ARG))
		return -ENOSYS; /* before 5.11 a wait cannot be bounded: do not even begin */
	result = iox_sys_enter(fd, pending, wait_nr, flags | IOX_ENTER_EXT_ARG, &arg, sizeof(arg));
	ring->elapsed_us = now_us() - start;
	return result;
}

int iox_probe_enter_by_region(struct iox_probe_ring *ring, unsigned wait_nr, uint64_t offset)
{
	unsigned pending = *ring->sq_tail - __atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE);
	uint64_t start = now_us();
	int result = iox_sys_enter(ring->fd, pending, wait_nr,
				   IOX_ENTER_GETEVENTS | IOX_ENTER_EXT_ARG | IOX_ENTER_EXT_ARG_REG,
				   (void *)(uintptr_t)offset, sizeof(struct iox_reg_wait));

	ring->elapsed_us = now_us() - start;
	return result;
}

int iox_probe_enter_first(struct iox_probe_ring *ring, const struct iox_probe_sqe *sqe,
			  uint64_t timeout_us)
{
	struct iox_timespec ts = {
		.tv_sec = (int64_t)(timeout_us / 1000000u),
		.tv_nsec = (int64_t)(timeout_us % 1000000u) * 1000,
	};
	struct iox_getevents_arg arg = { .ts = (uint64_t)(uintptr_t)&ts };

	ring->sqes[0] = *sqe;
	return iox_sys_enter(ring->fd, 1, 1, IOX_ENTER_GETEVENTS | IOX_ENTER_EXT_ARG, &arg,
			     sizeof(arg));
}

int iox_probe_reap(struct iox_probe_ring *ring, struct iox_probe_cqe *out)
{
	uint32_t head = *ring->cq_head;

	if (head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE))
		return 0;
	*out = ring->cqes[head & ring->cq_mask];
	__atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
	return 1;
}

unsigned iox_probe_ready(const struct iox_probe_ring *ring)
{
	return __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE) - *ring->cq_head;
}

unsigned iox_probe_sq_flags(const struct iox_probe_ring *ring)
{
	return __atomic_load_n(ring->sq_flags, __ATOMIC_ACQUIRE);
}

int iox_probe_register(struct iox_probe_ring *ring, unsigned opcode, void *arg, unsigned nr)
{
	return iox_sys_register(ring->fd, opcode, arg, nr);
}

int iox_probe_has_opcode(struct iox_probe_ring *ring, unsigned opcode)
{
	struct opcode_probe table;
	int result;

	memset(&table, 0, sizeof(table)); /* the kernel refuses anything else */
	result = iox_sys_register(ring->fd, IOX_REGISTER_PROBE, &table, PROBE_OPS);
	if (result < 0)
		return result;
	return opcode < table.ops_len && (table.ops[opcode].flags & 1);
}

int iox_probe_ring_fd_register(struct iox_probe_ring *ring)
{
	struct rsrc_update update = { .offset = UINT32_MAX, .data = (uint64_t)ring->fd };
	int result = iox_sys_register(ring->fd, IOX_REGISTER_RING_FDS, &update, 1);

	if (result < 0)
		return result;
	return result == 1 ? (int)update.offset : -ENODATA;
}

int iox_probe_ring_fd_unregister(struct iox_probe_ring *ring, int index)
{
	struct rsrc_update update = { .offset = (uint32_t)index };

	return iox_sys_register(ring->fd, IOX_UNREGISTER_RING_FDS, &update, 1);
}

int iox_probe_buffers_open(struct iox_probe_ring *ring, struct iox_probe_buffers *buffers,
			   unsigned group, unsigned entries, unsigned size, unsigned flags,
			   unsigned min_left)
{
	struct iox_buf_reg reg;
	unsigned bid;
	int result;

	memset(buffers, 0, sizeof(*buffers));
	buffers->ring_size = entries * sizeof(struct iox_buf);
	buffers->data_size = (size_t)entries * size;
	buffers->ring = mmap(NULL, buffers->ring_size, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buffers->ring == MAP_FAILED) {
		buffers->ring = NULL;
		return -errno;
	}
	buffers->data = mmap(NULL, buffers->data_size, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buffers->data == MAP_FAILED) {
		result = -errno;
		buffers->data = NULL;
		iox_probe_buffers_free(buffers);
		return result;
	}
	buffers->group = (uint16_t)group;
	buffers->entries = entries;
	buffers->size = size;

	memset(&reg, 0, sizeof(reg));
	reg.ring_addr = (uint64_t)(uintptr_t)buffers->ring;
	reg.ring_entries = entries;
	reg.bgid = (uint16_t)group;
	reg.flags = (uint16_t)flags;
	reg.min_left = min_left;
	result = iox_sys_register(ring->fd, IOX_REGISTER_PBUF_RING, &reg, 1);
	if (result < 0) {
		iox_probe_buffers_free(buffers);
		return result;
	}
	for (bid = 0; bid < entries; bid++)
		iox_probe_buffers_give(buffers, bid);
	return 0;
}

void iox_probe_buffers_give(struct iox_probe_buffers *buffers, unsigned bid)
{
	struct iox_buf *bufs = buffers->ring;
	/* The tail overlays entry 0's resv, so the entry is filled in by field, never as a whole. */
	uint16_t *tail = &bufs[0].resv;
	struct iox_buf *entry = &bufs[*tail & (buffers->entries - 1)];

	entry->addr = (uint64_t)(uintptr_t)(buffers->data + (size_t)bid * buffers->size);
	entry->len = buffers->size;
	entry->bid = (uint16_t)bid;
	__atomic_store_n(tail, (uint16_t)(*tail + 1), __ATOMIC_RELEASE);
}

int iox_probe_buffers_unregister(struct iox_probe_ring *ring, struct iox_probe_buffers *buffers)
{
	struct iox_buf_reg reg;

	memset(&reg, 0, sizeof(reg));
	reg.bgid = buffers->group;
	return iox_sys_register(ring->fd, IOX_UNREGISTER_PBUF_RING, &reg, 1);
}

void iox_probe_buffers_free(struct iox_probe_buffers *buffers)
{
	if (buffers->ring)
		munmap(buffers->ring, buffers->ring_size);
	if (buffers->data)
		munmap(buffers->data, buffers->data_size);
	buffers->ring = NULL;
	buffers->data = NULL;
}

int iox_probe_napi(struct iox_probe_ring *ring, int enable, uint32_t *busy_poll_to,
		   uint8_t *prefer_busy_poll)
{
	struct iox_napi napi;
	int result;

	memset(&napi, 0, sizeof(napi));
	if (enable) {
		napi.busy_poll_to = *busy_poll_to;
		napi.prefer_busy_poll = *prefer_busy_poll;
	}
	result = iox_sys_register(ring->fd, enable ? IOX_REGISTER_NAPI : IOX_UNREGISTER_NAPI, &napi,
				  1);
	*busy_poll_to = napi.busy_poll_to;
	*prefer_busy_poll = napi.prefer_busy_poll;
	return result;
}

int iox_probe_unshare_net(int with_user_namespace)
{
	int flags = CLONE_NEWNET | (with_user_namespace ? CLONE_NEWUSER : 0);

	return unshare(flags) < 0 ? -errno : 0;
}

int iox_probe_setns_net(int fd)
{
	return setns(fd, CLONE_NEWNET) < 0 ? -errno : 0;
}
