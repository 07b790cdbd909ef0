/* SPDX-License-Identifier: MIT */
#include "owner.h"

#include <pthread.h>

unsigned iox_forks;

static __thread uint64_t number;

uint64_t iox_thread_number(void)
{
	static uint64_t last;

	if (!number)
		number = ++last;
	return number;
}

static void forked(void)
{
	iox_forks++;
	number = 0;
}

int iox_owner_init(void)
{
	static bool watches_forks;

	if (!watches_forks && pthread_atfork(NULL, NULL, forked)) {
		PyErr_NoMemory();
		return -1;
	}
	watches_forks = true;
	return 0;
}

int iox_driver_check_owner(Driver *self)
{
	if (self->closed) {
		PyErr_SetString(PyExc_RuntimeError, "this driver is closed");
		return -1;
	}
	if (iox_driver_is_here(self))
		return 0;
	if (self->forks != iox_forks)
		PyErr_SetString(PyExc_RuntimeError,
				"this ring belongs to the process that made it, of which this is a fork: "
				"make a new loop here, and leave the old one alone");
	else
		PyErr_Format(PyExc_RuntimeError,
			     "a ring is used on the thread that made it (%lu), not on thread %lu", self->thread,
			     PyThread_get_thread_ident());
	return -1;
}

/*
 * None of these calls runs inside another, although a finalizer may try that in the middle of one: each of them
 * goes on with a ring that must still exist.
 */
int iox_driver_begin(Driver *self, const char *what)
{
	if (iox_driver_check_owner(self) < 0)
		return -1;
	if (self->inside) {
		PyErr_Format(PyExc_RuntimeError, "%s was called from inside %s", what, self->inside);
		return -1;
	}
	self->inside = what;
	return 0;
}
