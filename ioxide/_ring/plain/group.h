/* SPDX-License-Identifier: MIT */
/*
 * A group of receive buffers that the kernel picks from (a provided-buffer ring, 5.19).
 *
 * Three ways to use one:
 *
 *   shared       one group for all connections of a reactor; a completion is one whole buffer
 *   bundle       the same, but one completion may span several buffers (6.10); how much of each, the
 *                kernel writes into the ring
 *   incremental  a group for each connection (IOU_PBUF_RING_INC, 6.12); a buffer is filled by one
 *                completion after the other, and is the kernel's until one comes without BUF_MORE
 *
 * Each run of received bytes holds a reference to its buffer (`refs`).  The buffer can be provided again when the
 * kernel is done with it and every run was released.  Plain C; knows neither Python nor connections.
 *
 * The kernel takes provided buffers in turn, so each of them is written to sooner or later, however small the
 * load is.  A shared group therefore provides only `window` of its buffers; the others are idle, on a stack, the
 * last used on top.  The window grows with what a batch uses; iox_group_trim() makes it smaller again and gives
 * the pages of idle buffers back.
 */
#ifndef IOX_GROUP_H
#define IOX_GROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "uapi.h"

struct iox_buffer {
	uint32_t filled;   /* incremental: bytes the kernel has written */
	uint32_t refs;     /* runs that were not released yet; as many as bytes, at most */
	uint16_t position; /* where in the ring it was provided last */
	bool done;         /* the kernel will not write to it any more */
};

struct iox_group {
	uint16_t id;
	bool incremental, bundle, registered;
	uint32_t count, size;
	uint32_t entries;  /* of the ring */
	uint32_t window_max; /* the most buffers that are provided at once */
	uint32_t held;     /* buffers with runs that were not released */
	uint32_t in_slices; /* of these runs, those that slices hold */
	uint32_t provided; /* the kernel's, according to its completions; the others are held or idle */
	uint32_t window;   /* how many are provided */
	uint32_t used;     /* the most buffers of the window that one batch used since the last trim */
	uint32_t refused;  /* receives since the last batch that found none provided, though some are idle */
	uint16_t *idle;    /* a stack of ids */
	uint32_t idle_count;
	uint32_t idle_low; /* the least idle_count since the last trim: as many were not used */
	uint32_t idle_discarded; /* how many at the bottom of the stack have no pages */
	uint32_t refs;     /* of the owner, and one of each slice */
	void *owner;       /* incremental: the connection, for as long as it lives */
	uint16_t tail, published;
	struct iox_buf *ring;
	char *pool;
	struct iox_buffer *buffers;
};

struct iox_group *iox_group_new(uint32_t count, uint32_t size, bool incremental, bool bundle);
void iox_group_unref(struct iox_group *group); /* frees the memory with the last reference */
int iox_group_register(struct iox_group *group, int ring_fd, uint16_t id);
/* The same before anything is served: waits for memory as iox_pages_wait() says. */
int iox_group_register_waiting(struct iox_group *group, int ring_fd, uint16_t id);
/* Synchronous: when it returns the kernel picks no buffer of this group any more. */
void iox_group_unregister(struct iox_group *group, int ring_fd);

/*
 * Takes in a completion of `length` bytes that begins in buffer `bid`: the number of bytes that lie
 * in this buffer (the others are in *next), their offset in *offset.  0: the completion cannot be true.  The run
 * holds a reference.
 */
uint32_t iox_group_take(struct iox_group *group, uint16_t bid, uint32_t length, bool more,
			uint32_t *offset, uint16_t *next);

/* Releases a run; true when that has made the buffer free: it is then provided again, or idle. */
bool iox_group_release(struct iox_group *group, uint16_t bid);

/* Makes the window larger, because a batch has used much of it. */
void iox_group_grow(struct iox_group *group);

/* Provides idle buffers up to the window, and publishes. */
void iox_group_refill(struct iox_group *group);

/*
 * To be called at intervals: fits the window to what was used since the last call, and gives back the pages of
 * buffers that were idle all the time.  Only while every completion was taken in.
 */
void iox_group_trim(struct iox_group *group);

/* Whether another iox_group_trim() may give something back. */
bool iox_group_grown(const struct iox_group *group);

/* How many buffers are kept free: see reserve.c. */
static inline uint32_t iox_group_reserve(const struct iox_group *group)
{
	return group->count / 8;
}

/* Makes everything that was provided since the last call visible to the kernel. */
static inline void iox_group_publish(struct iox_group *group)
{
	if (group->published == group->tail)
		return;
	group->published = group->tail;
	/* The ring's tail overlays the last two bytes of entry 0 (struct io_uring_buf_ring). */
	__atomic_store_n(&group->ring[0].resv, group->tail, __ATOMIC_RELEASE);
}

/* After a batch was taken in. */
static inline void iox_group_batch(struct iox_group *group)
{
	uint32_t used = group->window - group->provided + group->refused;

	/* Held buffers are missing from the window, too: with none idle, that does not measure the use. */
	if (used <= group->used || !group->idle_count)
		return;
	group->used = used;
	if (2 * used > group->window)
		iox_group_grow(group);
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
