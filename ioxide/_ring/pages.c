/* SPDX-License-Identifier: MIT */
/*
 * From mmap, never from malloc: AddressSanitizer does not see the kernel read memory that was freed,
 * and neither does anybody else.  Pages that are gone make its late use fail with EFAULT, which is
 * counted (memory_faults), instead of sending another connection's bytes.
 */
#include "pages.h"

#include <sys/mman.h>
#include <time.h>

void *iox_pages_map(size_t bytes)
{
	void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return pages == MAP_FAILED ? NULL : pages;
}

void iox_pages_unmap(void *pages, size_t bytes)
{
#ifdef IOX_SANITIZE
	/* Kept, without any right: so that no later mapping makes a late use look right. */
	mmap(pages, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
#else
	munmap(pages, bytes);
#endif
}

bool iox_pages_wait(int attempt)
{
	struct timespec pause = { 0, (5L * 1000 * 1000) << attempt };

	if (attempt == 5)
		return false;
	nanosleep(&pause, NULL);
	return true;
}
