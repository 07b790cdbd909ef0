/* SPDX-License-Identifier: MIT */
/*
 * In a build for tests: the n-th memory allocation that the kernel makes in system calls of this module fails
 * (/proc/thread-self/fail-nth, 4.14; it needs a kernel with CONFIG_FAULT_INJECTION).  Only the calls that
 * IOX_MAY_FAIL() is around are counted, so that what fails is never an allocation of Python's.
 */
#ifndef IOX_FAILING_H
#define IOX_FAILING_H

#include <stdbool.h>

enum iox_failing_call {
	IOX_FAILING_NONE,
	IOX_FAILING_SETUP,
	IOX_FAILING_REGISTER,
	IOX_FAILING_MMAP,
	IOX_FAILING_ENTER,
};

#ifdef IOX_FAULTS
#include <stddef.h>

/* How many threads are armed. */
extern int iox_failing_threads;

int iox_failing_arm(unsigned nth); /* of the calling thread; 0 or -errno */
/* In which call an allocation was made to fail since iox_failing_arm(), IOX_FAILING_NONE: in none yet. */
enum iox_failing_call iox_failing_disarm(void);
bool iox_failing_begin(void);
void iox_failing_end(enum iox_failing_call which);

#define IOX_MAY_FAIL(which, call)                                                                       \
	({                                                                                              \
		bool counted = __atomic_load_n(&iox_failing_threads, __ATOMIC_RELAXED) && iox_failing_begin(); \
		__typeof__(call) result = (call);                                                       \
		if (counted)                                                                            \
			iox_failing_end(which);                                                         \
		result;                                                                                 \
	})
#else
#define IOX_MAY_FAIL(which, call) (call)
#endif

#endif
