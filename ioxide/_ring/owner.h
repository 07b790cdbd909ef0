/* SPDX-License-Identifier: MIT */
/* The owner of a ring: one thread of one process, for as long as the ring exists. */
#ifndef IOX_OWNER_H
#define IOX_OWNER_H

#include "driver_state.h"

extern unsigned iox_forks; /* grows in the child of a fork(2), where the ring is still the parent's */

int iox_owner_init(void); /* -1 with an exception set */
/*
 * A number of the calling thread: never 0, and never used again, unlike a thread's ident.  The thread of a
 * forked child has another number than the thread that it is a copy of.
 */
uint64_t iox_thread_number(void);

static inline bool iox_driver_is_here(const Driver *driver)
{
	return driver->owner == iox_thread_number();
}

int iox_driver_check_owner(Driver *driver); /* -1 with an exception: closed, or another thread */
/* The same, and begins `what`: -1 also inside another such call.  The caller ends it with inside = NULL. */
int iox_driver_begin(Driver *driver, const char *what);

#endif
