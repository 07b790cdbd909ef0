/* SPDX-License-Identifier: MIT */
#include "mailbox.h"

bool iox_mailbox_push(struct iox_mailbox *box, struct iox_op op)
{
	if (box->count == box->capacity) {
		uint32_t capacity = box->capacity ? box->capacity * 2 : 64;
		struct iox_op *ops = PyMem_Realloc(box->ops, capacity * sizeof(*ops));

		if (!ops)
			return false;
		box->ops = ops;
		box->capacity = capacity;
	}
	box->ops[box->count++] = op;
	return true;
}

void iox_mailbox_do(struct iox_mailbox *box)
{
	while (box->done < box->count) {
		struct iox_op op = box->ops[box->done++];

		op.run(&op);
	}
}

void iox_mailbox_drop(struct iox_mailbox *box)
{
	while (box->dropped < box->done) {
		struct iox_op op = box->ops[box->dropped++];

		/* Before Python code runs, which may queue, run and drop operations. */
		if (box->dropped == box->count)
			box->dropped = box->done = box->count = 0;
		Py_XDECREF(op.conn);
		Py_XDECREF(op.payload);
	}
}
