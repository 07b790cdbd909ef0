/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "memory.h"

#include "pages.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t page_round(size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (bytes + page - 1) / page * page;
}

bool iox_slab_pool_init(struct iox_slab_pool *pool, size_t slab_size, unsigned limit)
{
	pool->slab_size = page_round(slab_size);
	pool->limit = limit;
	pool->count = 0;
	pool->free = limit ? calloc(limit, sizeof(*pool->free)) : NULL;
	return !limit || pool->free;
}

void iox_slab_pool_clear(struct iox_slab_pool *pool)
{
	while (pool->count)
		iox_pages_unmap(pool->free[--pool->count], pool->slab_size);
	free(pool->free);
	pool->free = NULL;
	pool->limit = 0;
}

bool iox_slab_reserve(struct iox_slab_pool *pool, struct iox_slab *slab, size_t more)
{
	size_t need = slab->used + more, size;
	void *mem;

	if (need <= slab->size)
		return true;
	if (!slab->mem && need <= pool->slab_size && pool->count) {
		slab->mem = pool->free[--pool->count];
		slab->size = pool->slab_size;
		pool->hits++;
		return true;
	}
	/* Doubling, but never past what size_t holds: need is bounded by write_limit, far below it. */
	size = slab->size ? slab->size : pool->slab_size;
	while (size < need)
		size *= 2;
	if (slab->mem) {
		mem = mremap(slab->mem, slab->size, size, MREMAP_MAYMOVE);
		if (mem == MAP_FAILED)
			return false;
	} else {
		mem = iox_pages_map(size);
		if (!mem)
			return false;
		pool->misses++;
	}
	slab->mem = mem;
	slab->size = size;
	return true;
}

void iox_slab_release(struct iox_slab_pool *pool, struct iox_slab *slab)
{
	if (slab->mem) {
		if (slab->size == pool->slab_size && pool->count < pool->limit)
			pool->free[pool->count++] = slab->mem;
		else
			iox_pages_unmap(slab->mem, slab->size);
	}
	slab->mem = NULL;
	slab->size = slab->used = 0;
}
