// SPDX-License-Identifier: MIT
// Linux 6.10 has mseal(2): memory whose protection nobody changes any more. Before that, nothing is
// to be tested, and the program says why.
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tap.h"

#ifndef SYS_mseal
#define SYS_mseal 462 /* on every architecture (include/uapi/asm-generic/unistd.h, Linux 6.10) */
#endif

int main(void)
{
	size_t size = sysconf(_SC_PAGESIZE);
	char *page = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (syscall(SYS_mseal, page, size, 0) < 0 && errno == ENOSYS)
		skip_all("this kernel has no mseal(2)");
	plan(3);
	ok(mprotect(page, size, PROT_READ | PROT_WRITE) < 0 && errno == EPERM,
	   "a sealed page stays read-only");
	ok(munmap(page, size) < 0 && errno == EPERM, "it stays mapped");
	ok(page[0] == 0, "and is what it was");
	return done();
}
