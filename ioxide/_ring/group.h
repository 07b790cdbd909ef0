/* SPDX-License-Identifier: MIT */
/*
 * A group of receive buffers that the kernel picks from (a provided-buffer ring, 5.19).
 *
 * Three ways to use one:
 *
 *   shared       one group for all connections of a reactor; a completion is one whole buffer
 *   bundle       the same, but one completion may span several buffers (6.10)
 *   incremental  a group for each connection (IOU_PBUF_RING_INC, 6.12); a buffer is filled by one
 *                completion after the other, and is the kernel's until one comes without BUF_MORE
 *
 * A buffer given out is counted in runs (`refs`): it goes back when the kernel is done with it and
 * every run of it was released.  Plain C; knows neither Python nor connections.
 */
#ifndef IOX_GROUP_H
#define IOX_GROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "uapi.h"

struct iox_buffer {
	uint32_t filled;   /* incremental: bytes the kernel has written */
	uint32_t refs;     /* runs that were not released yet: one byte each may make many */
	uint16_t position; /* where in the ring it was provided last */
	bool done;         /* the kernel will not write to it any more */
};

struct iox_group {
	uint16_t id;
	bool incremental, registered;
	uint32_t count, size;
	uint32_t held;     /* buffers that the kernel cannot pick: taken, and not provided again */
	uint32_t refs;     /* the owner, and every lent slice */
	void *owner;       /* incremental: the connection, for as long as it lives */
	uint16_t tail, published;
	struct iox_buf *ring;
	char *pool;
	struct iox_buffer *buffers;
};

struct iox_group *iox_group_new(uint32_t count, uint32_t size, bool incremental);
void iox_group_unref(struct iox_group *group); /* frees the memory with the last reference */
int iox_group_register(struct iox_group *group, int ring_fd, uint16_t id);
/* The same before anything is served: waits for memory as iox_pages_wait() says. */
int iox_group_register_waiting(struct iox_group *group, int ring_fd, uint16_t id);
/* Synchronous: when it returns the kernel picks no buffer of this group any more. */
void iox_group_unregister(struct iox_group *group, int ring_fd);

/*
 * Takes in a completion of `length` bytes that begins in buffer `bid`: the number of bytes that lie
 * in this buffer (the rest goes on in *next), their offset in *offset.  0 for a completion that
 * cannot be true.  The run holds a reference.
 */
uint32_t iox_group_take(struct iox_group *group, uint16_t bid, uint32_t length, bool more,
			uint32_t *offset, uint16_t *next);

/* Gives a run back; true when the buffer became free and was provided again. */
bool iox_group_release(struct iox_group *group, uint16_t bid);

/* Makes everything that was provided since the last call visible to the kernel. */
static inline void iox_group_publish(struct iox_group *group)
{
	if (group->published == group->tail)
		return;
	group->published = group->tail;
	/* The ring's tail overlays the last two bytes of entry 0 (struct io_uring_buf_ring). */
	__atomic_store_n(&group->ring[0].resv, group->tail, __ATOMIC_RELEASE);
}

static inline char *iox_group_buffer(const struct iox_group *group, uint16_t bid)
{
	return group->pool + (size_t)bid * group->size;
}

static inline uint32_t iox_group_free(const struct iox_group *group)
{
	return group->count - group->held;
}

#endif
