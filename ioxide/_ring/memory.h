/* SPDX-License-Identifier: MIT */
/* Write slabs: memory that the kernel reads while a SEND is in flight. */
#ifndef IOX_MEMORY_H
#define IOX_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct iox_slab {
	char *mem;
	size_t size; /* bytes mapped */
	size_t used; /* bytes staged */
};

/* Standard-size slabs at rest; anything larger goes back to the system at once. */
struct iox_slab_pool {
	size_t slab_size;
	unsigned limit, count;
	char **free;
	uint64_t hits, misses;
};

bool iox_slab_pool_init(struct iox_slab_pool *pool, size_t slab_size, unsigned limit);
void iox_slab_pool_clear(struct iox_slab_pool *pool);

/* Makes room for `more` bytes behind those staged; false when the system has no memory. */
bool iox_slab_reserve(struct iox_slab_pool *pool, struct iox_slab *slab, size_t more);
void iox_slab_release(struct iox_slab_pool *pool, struct iox_slab *slab);

#endif
