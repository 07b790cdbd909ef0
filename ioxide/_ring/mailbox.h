/* SPDX-License-Identifier: MIT */
/*
 * The queue of operations that other threads want the reactor to run.  There is one queue for all of them, so
 * that the calls of a thread are run in their order.  An operation has the function that runs it.  The GIL guards
 * the queue.
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
	PyObject *payload;       /* strong, or NULL; what it is depends on the function */
	struct Driver *driver;   /* for a buffer that is given back; borrowed */
	struct iox_group *group; /* of that buffer; the function drops the reference */
	uint16_t bid;
};

/*
 * In order: operations that were run and still hold their references, then those to be run.  References are
 * dropped later, because that may run Python code, and operations are run where none may run.
 */
struct iox_mailbox {
	struct iox_op *ops;
	uint32_t dropped, done, count, capacity;
};

bool iox_mailbox_push(struct iox_mailbox *box, struct iox_op op); /* false: no memory */
void iox_mailbox_do(struct iox_mailbox *box);   /* does what is queued; runs no Python code */
void iox_mailbox_drop(struct iox_mailbox *box); /* drops what was done: may run Python code */

/*
 * Runs first what this thread, or one that it has waited for, has queued before.  On the reactor's thread, before
 * the connection's state is read: it may run Python code.
 */
static inline void iox_mailbox_first(struct iox_mailbox *box)
{
	if (box->count) {
		iox_mailbox_do(box);
		iox_mailbox_drop(box);
	}
}

#endif
