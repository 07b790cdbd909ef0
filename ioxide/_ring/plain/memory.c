/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "memory.h"

#include "pages.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t page_round(size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (bytes + page - 1) / page * page;
}

bool iox_slab_pool_init(struct iox_slab_pool *pool, size_t slab_size, size_t write_limit,
			unsigned limit, bool segmented)
{
	*pool = (struct iox_slab_pool){
		.slab_size = page_round(slab_size),
		.largest = page_round(write_limit),
		.segmented = segmented,
		.limit = limit,
		.free = limit ? calloc(limit, sizeof(*pool->free)) : NULL,
	};
	return !limit || pool->free;
}

static char *map(struct iox_slab_pool *pool, size_t size)
{
	char *mem = iox_pages_map(size);

	if (mem) {
		pool->misses++;
		pool->bytes += size;
	}
	return mem;
}

static void unmap(struct iox_slab_pool *pool, char *mem, size_t size)
{
	iox_pages_unmap(mem, size);
	pool->bytes -= size;
}

/* A slab of the pool's size. */
static char *take(struct iox_slab_pool *pool)
{
	if (!pool->count)
		return map(pool, pool->slab_size);
	pool->hits++;
	pool->count--;
	if (pool->count < pool->low)
		pool->low = pool->count;
	return pool->free[pool->count];
}

static void drop_grown(struct iox_slab_pool *pool, unsigned index)
{
	pool->grown_bytes -= pool->grown[index].size;
	pool->grown_count--;
	memmove(&pool->grown[index], &pool->grown[index + 1],
		(pool->grown_count - index) * sizeof(pool->grown[0]));
}

static void unmap_oldest(struct iox_slab_pool *pool)
{
	struct iox_grown oldest = pool->grown[0];

	drop_grown(pool, 0);
	unmap(pool, oldest.mem, oldest.size);
}

static void give(struct iox_slab_pool *pool, char *mem, size_t size)
{
	size_t room = pool->limit * pool->slab_size;

	if (size == pool->slab_size && pool->count < pool->limit) {
		pool->free[pool->count++] = mem;
		return;
	}
	if (size == pool->slab_size || size > room) {
		unmap(pool, mem, size);
		return;
	}
	/*
	 * Grown slabs are kept, too, or each large answer would cost an mmap(2), an munmap(2) and a fault for each
	 * page.  They may have as many bytes as the other idle slabs; the oldest are given back first.
	 */
	while (pool->grown_count == IOX_GROWN_LIMIT || pool->grown_bytes + size > room)
		unmap_oldest(pool);
	pool->grown[pool->grown_count++] = (struct iox_grown){ mem, size };
	pool->grown_bytes += size;
	pool->grown_used = true;
}

void iox_slab_pool_shrink(struct iox_slab_pool *pool)
{
	while (pool->grown_count)
		unmap_oldest(pool);
}

void iox_slab_pool_trim(struct iox_slab_pool *pool)
{
	unsigned unused = pool->low < pool->count ? pool->low : pool->count;
	unsigned spare = pool->count > IOX_SLABS_KEPT ? pool->count - IOX_SLABS_KEPT : 0;

	/* Those at the bottom have been idle longest. */
	spare = spare < unused ? spare : unused;
	for (unsigned i = 0; i < spare; i++)
		unmap(pool, pool->free[i], pool->slab_size);
	pool->count -= spare;
	memmove(pool->free, pool->free + spare, pool->count * sizeof(*pool->free));
	pool->low = pool->count;
	if (!pool->grown_used)
		iox_slab_pool_shrink(pool);
	pool->grown_used = false;
}

void iox_slab_pool_clear(struct iox_slab_pool *pool)
{
	iox_slab_pool_shrink(pool);
	while (pool->count)
		unmap(pool, pool->free[--pool->count], pool->slab_size);
	free(pool->free);
	pool->free = NULL;
	pool->limit = 0;
}

/* Bytes in the slab that takes bytes. */
static size_t filled(const struct iox_batch *batch)
{
	return batch->used - batch->before;
}

/* Moves that slab's bytes to an idle grown slab; the last one is the likeliest to be large enough. */
static bool move_to_grown(struct iox_slab_pool *pool, struct iox_batch *batch, size_t need)
{
	for (unsigned i = pool->grown_count; i--;) {
		struct iox_grown grown = pool->grown[i];

		if (grown.size < need)
			continue;
		drop_grown(pool, i);
		pool->hits++;
		pool->grown_used = true;
		if (batch->mem) {
			memcpy(grown.mem, batch->mem, filled(batch));
			give(pool, batch->mem, batch->size);
		}
		batch->mem = grown.mem;
		batch->size = grown.size;
		return true;
	}
	return false;
}

/* Makes room for `need` bytes in the slab that takes bytes. */
static bool grow(struct iox_slab_pool *pool, struct iox_batch *batch, size_t need)
{
	size_t size = batch->mem ? batch->size : pool->slab_size;
	char *mem;

	if (need <= size) {
		mem = take(pool);
		if (!mem)
			return false; /* and the size stays 0, on which the next write relies */
		batch->mem = mem;
		batch->size = size;
		return true;
	}
	if (move_to_grown(pool, batch, need))
		return true;
	/* Doubled, up to write_limit; only the batch of a transport can be larger than that. */
	while (size < need)
		size *= 2;
	if (size > pool->largest && need <= pool->largest)
		size = pool->largest;
	if (batch->mem) {
		mem = mremap(batch->mem, batch->size, size, MREMAP_MAYMOVE);
		if (mem == MAP_FAILED)
			return false;
		pool->grows++;
		pool->bytes += size - batch->size;
	} else {
		mem = map(pool, size);
		if (!mem)
			return false;
	}
	batch->mem = mem;
	batch->size = size;
	return true;
}

/* Makes room for `more` segments. */
static bool chain_reserve(struct iox_batch *batch, uint32_t more)
{
	struct iox_chain *chain = batch->chain;
	uint32_t count = (chain ? chain->count : 0) + more, capacity = chain ? chain->capacity : 3;

	if (chain && count <= capacity)
		return true;
	while (capacity < count)
		capacity *= 2;
	chain = realloc(chain, sizeof(*chain) + capacity * sizeof(chain->segments[0]) +
				       (capacity + 1) * sizeof(struct iovec));
	if (!chain)
		return false;
	if (!batch->chain) {
		chain->count = chain->first = 0;
		chain->passed = 0;
	}
	chain->capacity = capacity;
	batch->chain = chain;
	return true;
}

/* Makes a segment of the slab that takes bytes, if there is one. */
static void end_slab(struct iox_batch *batch)
{
	struct iox_chain *chain = batch->chain;

	if (!batch->mem)
		return;
	chain->segments[chain->count++] = (struct iox_segment){
		.mem = batch->mem, .used = filled(batch), .size = batch->size
	};
	batch->before = batch->used;
	batch->mem = NULL;
	batch->size = 0;
}

/*
 * Takes all the slabs that `length` more bytes need, or none; and reserves segments for those that will be full.
 * The slabs are put behind the segment that the present slab will become.
 */
static bool take_slabs(struct iox_slab_pool *pool, struct iox_batch *batch, size_t length)
{
	size_t slab = pool->slab_size, room = batch->mem ? slab - filled(batch) : 0;
	bool first = !batch->mem;
	uint32_t more, taken;
	struct iox_segment *at;

	if (length <= room)
		return true;
	more = (uint32_t)((length - room + slab - 1) / slab);
	if (first) {
		batch->mem = take(pool);
		if (!batch->mem)
			return false;
		batch->size = slab;
		if (!--more)
			return true;
	}
	if (chain_reserve(batch, more + 1)) {
		at = &batch->chain->segments[batch->chain->count + 1];
		for (taken = 0; taken < more; taken++)
			if (!(at[taken].mem = take(pool)))
				break;
		if (taken == more)
			return true;
		while (taken--)
			give(pool, at[taken].mem, slab);
	}
	if (first) {
		give(pool, batch->mem, slab);
		batch->mem = NULL;
		batch->size = 0;
	}
	return false;
}

static bool write_segments(struct iox_slab_pool *pool, struct iox_batch *batch, const char *data,
			   size_t length)
{
	size_t slab = pool->slab_size;

	if (!take_slabs(pool, batch, length))
		return false;
	while (length) {
		size_t at = filled(batch), step;

		if (at == slab) {
			end_slab(batch);
			batch->mem = batch->chain->segments[batch->chain->count].mem;
			batch->size = slab;
			at = 0;
		}
		step = length < slab - at ? length : slab - at;
		memcpy(batch->mem + at, data, step);
		batch->used += step;
		data += step;
		length -= step;
	}
	return true;
}

bool iox_batch_write(struct iox_slab_pool *pool, struct iox_batch *batch, const char *data,
		     size_t length)
{
	size_t at = filled(batch);

	if (pool->segmented)
		return write_segments(pool, batch, data, length);
	if (at + length > batch->size && !grow(pool, batch, at + length))
		return false;
	memcpy(batch->mem + at, data, length);
	batch->used += length;
	return true;
}

bool iox_batch_hold(struct iox_slab_pool *pool, struct iox_batch *batch, const char *data,
		    size_t length, void *owner)
{
	struct iox_chain *chain;

	if (!chain_reserve(batch, 2))
		return false;
	end_slab(batch);
	chain = batch->chain;
	chain->segments[chain->count++] = (struct iox_segment){
		.mem = (char *)data, .used = length, .owner = owner
	};
	batch->used += length;
	batch->before = batch->used;
	pool->held += length;
	return true;
}

void iox_batch_release(struct iox_slab_pool *pool, struct iox_batch *batch)
{
	struct iox_chain *chain = batch->chain;

	if (batch->mem)
		give(pool, batch->mem, batch->size);
	if (chain) {
		for (uint32_t i = 0; i < chain->count; i++) {
			struct iox_segment *segment = &chain->segments[i];

			if (segment->size) {
				give(pool, segment->mem, segment->size);
			} else if (segment->owner) {
				pool->held -= segment->used;
				pool->drop_owner(segment->owner);
			}
		}
		free(chain);
	}
	*batch = (struct iox_batch){ 0 };
}

unsigned iox_batch_leak(struct iox_batch *batch)
{
	struct iox_chain *chain = batch->chain;
	unsigned count = 0;

	for (uint32_t i = 0; chain && i < chain->count; i++) {
		count += chain->segments[i].owner != NULL;
		chain->segments[i].owner = NULL;
	}
	return count;
}

struct msghdr *iox_batch_gather(struct iox_batch *batch, size_t sent, char **from)
{
	struct iox_chain *chain = batch->chain;
	struct iovec *iov;
	size_t skip, count = 0;

	while (chain && chain->first < chain->count &&
	       sent - chain->passed >= chain->segments[chain->first].used)
		chain->passed += chain->segments[chain->first++].used;
	if (!chain || chain->first == chain->count) {
		*from = batch->mem + (sent - batch->before);
		return NULL;
	}
	iov = (struct iovec *)&chain->segments[chain->capacity];
	skip = sent - chain->passed;
	/* No more segments than the kernel takes at once: the others are sent as after any short result. */
	for (uint32_t i = chain->first; i < chain->count && count < IOV_MAX; i++, skip = 0)
		iov[count++] = (struct iovec){ chain->segments[i].mem + skip, chain->segments[i].used - skip };
	if (filled(batch) && count < IOV_MAX)
		iov[count++] = (struct iovec){ batch->mem, filled(batch) };
	chain->msg = (struct msghdr){ .msg_iov = iov, .msg_iovlen = count };
	return &chain->msg;
}
