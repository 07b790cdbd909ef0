/* SPDX-License-Identifier: MIT */
/*
 * Write slabs: memory that the kernel reads while a send is in flight.
 *
 * A batch is what one submission sends.  It begins as one slab of the pool's size, and when that is
 * full it either grows, or, segmented, takes another slab of the pool's size beside it.
 */
#ifndef IOX_MEMORY_H
#define IOX_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* A segmented batch's slabs that are full already.  The kernel may look at it with the slabs. */
struct iox_chain {
	uint32_t count, capacity;
	struct msghdr msg;
	/*
	 * One more than the capacity: the last entry of a message is the slab that takes bytes.  The
	 * end of an entry never moves; what lies between a slab's begin and an entry's has been sent.
	 */
	struct iovec iov[];
};

struct iox_batch {
	char *mem;   /* the slab that takes bytes */
	size_t size; /* of that slab */
	size_t used; /* bytes of the whole batch */
	struct iox_chain *chain; /* NULL: that slab is all there is */
};

/* Grown slabs at rest, the oldest first. */
#define IOX_GROWN_LIMIT 16

struct iox_grown {
	char *mem;
	size_t size;
};

struct iox_slab_pool {
	size_t slab_size, largest; /* bytes, whole pages */
	bool segmented;
	unsigned limit, count;     /* slabs of that size at rest */
	unsigned low;              /* the least there were since the last trim: so many were not used */
	bool grown_used;           /* since then */
	char **free;
	struct iox_grown grown[IOX_GROWN_LIMIT];
	unsigned grown_count;
	size_t grown_bytes;        /* at most limit * slab_size */
	size_t bytes;              /* mapped, at rest or not */
	uint64_t hits, misses, grows;
};

bool iox_slab_pool_init(struct iox_slab_pool *pool, size_t slab_size, size_t write_limit,
			unsigned limit, bool segmented);
void iox_slab_pool_clear(struct iox_slab_pool *pool);
/* Gives grown slabs at rest back to the system. */
void iox_slab_pool_shrink(struct iox_slab_pool *pool);
/* Called now and then: gives slabs that rested all the time since the last call back, but for a few. */
void iox_slab_pool_trim(struct iox_slab_pool *pool);
/* So many of the pool's size are kept at rest however long nobody needs them: 1 MiB by default. */
#define IOX_SLABS_KEPT 64
/* Whether another trim may have something to give back. */
static inline bool iox_slab_pool_grown(const struct iox_slab_pool *pool)
{
	return pool->grown_count || pool->count > IOX_SLABS_KEPT;
}

/* Appends a copy of the bytes; false, and nothing appended, when the system has no memory. */
bool iox_batch_write(struct iox_slab_pool *pool, struct iox_batch *batch, const char *data,
		     size_t length);
void iox_batch_release(struct iox_slab_pool *pool, struct iox_batch *batch);

/*
 * The message of what is left after `sent` bytes, valid as long as the batch; NULL when that lies in
 * the last slab alone, at *from.
 */
struct msghdr *iox_batch_gather(const struct iox_slab_pool *pool, struct iox_batch *batch,
				size_t sent, char **from);

#endif
