/* SPDX-License-Identifier: MIT */
/*
 * What other threads ask of the reactor: one queue for all of it, so that the order of one thread's
 * calls is the order in which they happen.  An operation carries the function that does it.  The GIL
 * guards the queue.
 */
#ifndef IOX_MAILBOX_H
#define IOX_MAILBOX_H

#include "interpreter.h"

#include <stdint.h>

struct Connection;
struct Driver;
struct iox_group;

struct iox_op {
	/* On the reactor's thread.  Runs no Python code. */
	void (*run)(const struct iox_op *op);
	struct Connection *conn; /* strong, or NULL */
	PyObject *load;          /* strong, or NULL; the function knows what it is */
	struct Driver *driver;   /* of a buffer that is given back; borrowed, the queue is its own */
	struct iox_group *group; /* and in which group it lies; the function drops the reference */
	uint16_t bid;
};

/*
 * In order: operations that were done and still hold their references, then those to be done.  A
 * reference is dropped where Python code may run, which is not where operations are done.
 */
struct iox_mailbox {
	struct iox_op *ops;
	uint32_t dropped, done, count, capacity;
};

bool iox_mailbox_push(struct iox_mailbox *box, struct iox_op op); /* false: no memory */
void iox_mailbox_do(struct iox_mailbox *box);   /* does what is queued; runs no Python code */
void iox_mailbox_drop(struct iox_mailbox *box); /* drops what was done: may run Python code */

/*
 * What this thread, or one that it has waited for, had queued comes before what it does now.  On the
 * reactor's thread, before the connection is looked at: it may run Python code.
 */
static inline void iox_mailbox_first(struct iox_mailbox *box)
{
	if (box->count) {
		iox_mailbox_do(box);
		iox_mailbox_drop(box);
	}
}

#endif
