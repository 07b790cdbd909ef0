/* SPDX-License-Identifier: MIT */
/*
 * Write slabs: memory that the kernel reads while a send is in flight.
 *
 * A batch is what one submission sends.  It begins as one slab of the pool's size.  When that is full it is made
 * larger, or, segmented, another slab of the pool's size is added.  Bytes of another owner can be held instead of
 * copied: they are a segment of their own, and the bytes after them begin a new slab.
 */
#ifndef IOX_MEMORY_H
#define IOX_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* A part of a batch to which nothing is appended any more: a slab, or held bytes. */
struct iox_segment {
	char *mem;
	size_t used;
	size_t size; /* of the slab; 0: held */
	void *owner; /* of held bytes, with a reference; NULL: a slab, or iox_batch_leak() was called */
};

/* The segments of a batch, in order.  The kernel may look at it with them. */
struct iox_chain {
	uint32_t count, capacity;
	uint32_t first; /* what is not sent yet begins in this segment */
	size_t passed;  /* bytes of the segments before it */
	struct msghdr msg; /* its entries lie behind the segments: one more than the capacity */
	struct iox_segment segments[];
};

struct iox_batch {
	char *mem;     /* the slab that takes bytes; NULL: none yet, or none since the last held bytes */
	size_t size;   /* of that slab */
	size_t used;   /* bytes of the whole batch */
	size_t before; /* of these, in segments */
	struct iox_chain *chain; /* NULL: that slab is all there is */
};

/* Idle grown slabs, the oldest first. */
#define IOX_GROWN_LIMIT 16

struct iox_grown {
	char *mem;
	size_t size;
};

struct iox_slab_pool {
	size_t slab_size, largest; /* bytes, whole pages */
	bool segmented;
	unsigned limit, count;     /* idle slabs of that size: the most, and how many there are */
	unsigned low;              /* the least count since the last trim: as many were not used */
	bool grown_used;           /* a grown slab was used since the last trim */
	char **free;
	struct iox_grown grown[IOX_GROWN_LIMIT];
	unsigned grown_count;
	size_t grown_bytes;        /* at most limit * slab_size */
	size_t bytes;              /* mapped, idle or not */
	size_t held;               /* held bytes in batches */
	void (*drop_owner)(void *owner); /* drops a reference; must not call functions of this file */
	uint64_t hits, misses, grows;
};

bool iox_slab_pool_init(struct iox_slab_pool *pool, size_t slab_size, size_t write_limit,
			unsigned limit, bool segmented);
void iox_slab_pool_clear(struct iox_slab_pool *pool);
/* Gives idle grown slabs back to the system. */
void iox_slab_pool_shrink(struct iox_slab_pool *pool);
/* To be called at intervals: gives back slabs that were idle since the last call, but IOX_SLABS_KEPT. */
void iox_slab_pool_trim(struct iox_slab_pool *pool);
/* How many slabs of the pool's size are never given back: 1 MiB by default. */
#define IOX_SLABS_KEPT 64
/* Whether another trim may give something back. */
static inline bool iox_slab_pool_grown(const struct iox_slab_pool *pool)
{
	return pool->grown_count || pool->count > IOX_SLABS_KEPT;
}

/* Appends a copy of the bytes; false, and nothing appended, when the system has no memory. */
bool iox_batch_write(struct iox_slab_pool *pool, struct iox_batch *batch, const char *data,
		     size_t length);
/*
 * Appends the bytes without a copy, and takes over the caller's reference to their owner, which must keep them
 * unchanged; false, and nothing was appended or taken over, when the system has no memory.
 */
bool iox_batch_hold(struct iox_slab_pool *pool, struct iox_batch *batch, const char *data,
		    size_t length, void *owner);
void iox_batch_release(struct iox_slab_pool *pool, struct iox_batch *batch);
/* Never drops the references of a batch, which the kernel may go on reading; returns how many there are. */
unsigned iox_batch_leak(struct iox_batch *batch);

/*
 * The message for what is left after `sent` bytes, valid as long as the batch; NULL when that is in the last slab
 * alone, at *from.  `sent` never decreases.
 */
struct msghdr *iox_batch_gather(struct iox_batch *batch, size_t sent, char **from);

#endif
