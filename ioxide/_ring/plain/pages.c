/* SPDX-License-Identifier: MIT */
/*
 * From mmap(2), never from malloc(3): AddressSanitizer does not see that the kernel reads freed memory.  Where the
 * pages are unmapped, a late read fails with EFAULT, which is counted (memory_faults), instead of sending another
 * connection's bytes.
 */
#include "pages.h"

#include "failing.h"

#include <stdint.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

void *iox_pages_map(size_t bytes)
{
	void *pages = IOX_MAY_FAIL(IOX_FAILING_MMAP, mmap(NULL, bytes, PROT_READ | PROT_WRITE,
							  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

	return pages == MAP_FAILED ? NULL : pages;
}

void iox_pages_unmap(void *pages, size_t bytes)
{
#ifdef IOX_SANITIZE
	/* The addresses stay mapped without access, so that no later mapping hides a late use. */
	mmap(pages, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
#else
	munmap(pages, bytes);
#endif
}

void iox_pages_discard(void *from, size_t bytes)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t begin = ((uintptr_t)from + page - 1) / page * page;
	uintptr_t end = ((uintptr_t)from + bytes) / page * page;

	if (begin < end)
		madvise((void *)begin, end - begin, MADV_DONTNEED);
}

bool iox_pages_wait(int attempt)
{
	struct timespec pause = { 0, (5L * 1000 * 1000) << attempt };

	if (attempt == 5)
		return false;
	nanosleep(&pause, NULL);
	return true;
}
