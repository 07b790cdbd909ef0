/* SPDX-License-Identifier: MIT */
/* Memory that the kernel reads or writes for an operation. */
#ifndef IOX_PAGES_H
#define IOX_PAGES_H

#include <stdbool.h>
#include <stddef.h>

void *iox_pages_map(size_t bytes); /* NULL when there is no memory */
void iox_pages_unmap(void *pages, size_t bytes);
/* Gives the whole pages in the range back to the system: they stay mapped, and read as 0. */
void iox_pages_discard(void *from, size_t bytes);

/*
 * The kernel returns what a closed ring was charged to RLIMIT_MEMLOCK asynchronously, so a ring that is opened
 * right after can fail with ENOMEM.  Sleeps 5, 10, 20, 40, 80 ms; false from the sixth attempt on.
 */
bool iox_pages_wait(int attempt);

#endif
