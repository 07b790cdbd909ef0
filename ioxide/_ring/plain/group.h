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
 * A buffer given out is counted in runs (`refs`): it goes back when the kernel is done with it and
 * every run of it was released.  Plain C; knows neither Python nor connections.
 *
 * The kernel takes provided buffers in turn, so each of them is written to sooner or later, however
 * small the load is.  A shared group therefore provides only `window` of its buffers; the others rest
 * on a stack, the last used on top.  The window grows with what a batch uses up, and
 * iox_group_trim() makes it smaller again and gives the pages of buffers at rest back.
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
	bool incremental, bundle, registered;
	uint32_t count, size;
	uint32_t entries;  /* of the ring */
	uint32_t window_max; /* no more buffers are provided at once */
	uint32_t held;     /* buffers with runs that were not released */
	uint32_t lent;     /* of these runs, those that slices hold */
	uint32_t provided; /* the kernel's, as far as its completions tell; the others are held or rest */
	uint32_t window;   /* so many are to be provided */
	uint32_t used;     /* of the window, the most that one batch used up since the last trim */
	uint32_t refused;  /* receives that found none provided, though some rest, since the last batch */
	uint16_t *resting; /* a stack of ids */
	uint32_t resting_count;
	uint32_t resting_low; /* the least it was since the last trim: so many were not used */
	uint32_t resting_bare; /* the lowest so many have no pages */
	uint32_t refs;     /* the owner, and every lent slice */
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
 * in this buffer (the rest goes on in *next), their offset in *offset.  0 for a completion that
 * cannot be true.  The run holds a reference.
 */
uint32_t iox_group_take(struct iox_group *group, uint16_t bid, uint32_t length, bool more,
			uint32_t *offset, uint16_t *next);

/* Gives a run back; true when the buffer became free, so that it is provided again or rests. */
bool iox_group_release(struct iox_group *group, uint16_t bid);

/* Makes the window larger, because a batch has used much of it up. */
void iox_group_grow(struct iox_group *group);

/* Provides buffers at rest up to the window, and publishes. */
void iox_group_refill(struct iox_group *group);

/*
 * Called now and then: makes the window fit what was used since the last call, and gives the pages of
 * buffers that rested all the time back.  Only while every completion was taken in.
 */
void iox_group_trim(struct iox_group *group);

/* Whether another iox_group_trim() may have something to give back. */
bool iox_group_grown(const struct iox_group *group);

/* Runs beyond so many are not lent, and so many buffers are kept free: see reserve.c. */
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

	/* Held buffers are missing from the window, too: with none at rest, that is no measure. */
	if (used <= group->used || !group->resting_count)
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
