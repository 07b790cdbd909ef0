/* SPDX-License-Identifier: MIT */
/* Whose a ring is: one thread's of one process, for good. */
#ifndef IOX_OWNER_H
#define IOX_OWNER_H

#include "driver_state.h"

extern unsigned iox_forks; /* grows in the child of a fork(2), where the ring is still the parent's */

int iox_owner_init(void); /* -1 with an exception set */
/*
 * Who calls: never 0, and never anybody else's, while a thread's ident is given to the next one when it
 * has ended.  A forked child's only thread has another than the one that it is a copy of.
 */
uint64_t iox_thread_number(void);

static inline bool iox_driver_is_here(const Driver *driver)
{
	return driver->owner == iox_thread_number();
}

int iox_driver_check_owner(Driver *driver); /* -1 with an exception: closed, or another thread */
/* The same, and begins `what`: -1 also from inside another; whoever began ends, with inside = NULL. */
int iox_driver_begin(Driver *driver, const char *what);

#endif
