/* SPDX-License-Identifier: MIT */
/* Memory that the kernel reads or writes on our behalf. */
#ifndef IOX_PAGES_H
#define IOX_PAGES_H

#include <stdbool.h>
#include <stddef.h>

void *iox_pages_map(size_t bytes); /* NULL when there is no memory */
void iox_pages_unmap(void *pages, size_t bytes);
/* Gives whole pages between `from` and its end back to the system: they stay mapped, and read as 0. */
void iox_pages_discard(void *from, size_t bytes);

/*
 * What a closed ring was charged to RLIMIT_MEMLOCK is given back asynchronously, so whoever opens one
 * right after can see ENOMEM for a moment: sleeps 5, 10, 20, 40, 80 ms, then says to give up.
 */
bool iox_pages_wait(int attempt);

#endif
