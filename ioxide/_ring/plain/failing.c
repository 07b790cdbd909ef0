/* SPDX-License-Identifier: MIT */
#include "failing.h"

#ifdef IOX_FAULTS
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int iox_failing_threads;

/* Allocations of the calls that are counted, until one fails; 0: one has failed, in `where`. */
static _Thread_local unsigned left;
static _Thread_local enum iox_failing_call where;
static _Thread_local int file = -1;

static void tell(unsigned nth)
{
	char text[16];
	int length = snprintf(text, sizeof(text), "%u", nth);

	if (write(file, text, (size_t)length) != length)
		abort(); /* otherwise nothing would fail, and the test would pass */
}

int iox_failing_arm(unsigned nth)
{
	iox_failing_disarm();
	file = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (file < 0)
		return -errno;
	left = nth;
	where = IOX_FAILING_NONE;
	__atomic_add_fetch(&iox_failing_threads, 1, __ATOMIC_RELAXED);
	return 0;
}

enum iox_failing_call iox_failing_disarm(void)
{
	enum iox_failing_call failed = where;

	if (file < 0)
		return IOX_FAILING_NONE;
	__atomic_sub_fetch(&iox_failing_threads, 1, __ATOMIC_RELAXED);
	close(file);
	file = -1;
	where = IOX_FAILING_NONE;
	return failed;
}

bool iox_failing_begin(void)
{
	if (file < 0 || !left)
		return false;
	tell(left);
	return true;
}

void iox_failing_end(enum iox_failing_call which)
{
	char text[16] = { 0 };
	int error = errno;

	if (pread(file, text, sizeof(text) - 1, 0) <= 0)
		abort();
	tell(0);
	left = (unsigned)strtoul(text, NULL, 10);
	if (!left)
		where = which;
	errno = error;
}
#endif
