/* SPDX-License-Identifier: MIT */
/*
 * What other threads ask of the reactor: one queue for all of it, so that the order of one thread's
 * calls is the order in which they happen.
 *
 * A producer appends, then wakes (iox_driver_wake()).  The reactor does all that is queued at the top
 * of wait(), when the flag of the wake it was woken by has long been cleared: what is appended later
 * finds the flag down and writes another wake.  The GIL guards the queue itself.
 *
 * The reactor's own thread may queue as well, and may have waited for a thread that did.  So a call
 * made there that has an order (write(), flush(), close(), abort()) does first what is queued
 * (iox_foreign_first()): otherwise the reactor's own bytes would overtake.
 *
 * Nothing here blocks, and a producer never waits for room: bytes are bounded by write_limit, which
 * counts what is queued here too.
 */
#include "internal.h"

#include <errno.h>
#include <unistd.h>

static bool push(Driver *self, struct iox_op op)
{
	struct iox_ops *queue = &self->foreign;

	if (queue->count == queue->capacity) {
		uint32_t capacity = queue->capacity ? queue->capacity * 2 : 64;
		struct iox_op *ops = PyMem_Realloc(queue->ops, capacity * sizeof(*ops));

		if (!ops)
			return false;
		queue->ops = ops;
		queue->capacity = capacity;
	}
	queue->ops[queue->count++] = op;
	return true;
}

static void wake(Driver *self)
{
	uint64_t one = 1;

	if (!self->wake_each || self->wake_fd < 0) {
		iox_driver_wake(self);
		return;
	}
	/* What upstream did before its issue #96, kept to be measured: a write for each call. */
	__atomic_exchange_n(&self->wake_pending, 1, __ATOMIC_SEQ_CST);
	self->counters.wake_writes++;
	while (write(self->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static int push_for(Connection *conn, enum iox_op_kind kind, PyObject *load)
{
	if (!push(conn->driver, (struct iox_op){ .kind = kind, .conn = conn, .load = load })) {
		PyErr_NoMemory();
		return -1;
	}
	Py_INCREF(conn);
	Py_XINCREF(load);
	wake(conn->driver);
	return 0;
}

bool iox_foreign_return(Driver *self, struct iox_group *group, uint16_t bid)
{
	if (!push(self, (struct iox_op){ .kind = IOX_OP_RETURN, .group = group, .bid = bid }))
		return false;
	self->counters.foreign_returns++;
	/* Nobody else tells the reactor, and somebody may wait for just this one. */
	if (iox_list_linked(&self->starved) || group->incremental || self->wake_each)
		wake(self);
	return true;
}

PyObject *iox_foreign_write(Connection *conn, PyObject *data)
{
	PyObject *bytes;
	size_t length;
	int ret;

	/* First of all: it may run Python code, which may end this connection. */
	bytes = PyBytes_CheckExact(data) ? Py_NewRef(data) : PyBytes_FromObject(data);
	if (!bytes)
		return NULL;
	length = (size_t)PyBytes_GET_SIZE(bytes);
	ret = iox_send_check(conn, length);
	if (ret == 0 && conn->ending) {
		iox_raise_os_error(EPIPE, "write() on a connection that was closed");
		ret = -1;
	}
	if (ret == 0 && length) {
		ret = push_for(conn, IOX_OP_WRITE, bytes);
		if (ret == 0) {
			conn->foreign_bytes += length;
			conn->driver->counters.foreign_writes++;
		}
	}
	Py_DECREF(bytes);
	if (ret < 0)
		return NULL;
	Py_RETURN_NONE;
}

int iox_foreign_flush(Connection *conn, Waiter *waiter)
{
	conn->driver->counters.foreign_flushes++;
	return push_for(conn, IOX_OP_FLUSH, (PyObject *)waiter);
}

int iox_foreign_close(Connection *conn, bool abort)
{
	if (conn->aborted || conn->fd < 0 || conn->driver->closed || (!abort && (conn->closing || conn->ending)))
		return 0;
	if (push_for(conn, abort ? IOX_OP_ABORT : IOX_OP_CLOSE, NULL) < 0)
		return -1;
	conn->ending = true;
	conn->driver->counters.foreign_closes++;
	return 0;
}

int iox_foreign_unpause(Connection *conn)
{
	return push_for(conn, IOX_OP_UNPAUSE, NULL);
}

static void run_write(Connection *conn, PyObject *bytes)
{
	size_t length = (size_t)PyBytes_GET_SIZE(bytes);

	conn->foreign_bytes -= length;
	if (conn->send_errno || conn->closing || conn->aborted || conn->fd < 0) {
		conn->bytes_dropped += length; /* ended since: a flush of it raises */
		conn->driver->counters.bytes_unsent += length;
		conn->driver->counters.foreign_drops++;
		iox_send_wake(conn, false);
	} else if (!iox_send_stage(conn, PyBytes_AS_STRING(bytes), length)) {
		conn->driver->counters.bytes_unsent += length;
		iox_conn_abort(conn, IOX_CAUSE_ERROR, "no memory to stage what another thread wrote");
	}
}

static void run_flush(Connection *conn, Waiter *waiter)
{
	if (waiter->state != IOX_WAITER_PENDING)
		return; /* cancelled meanwhile */
	if (waiter->target == IOX_TARGET_NOW)
		waiter->target = iox_send_target(conn);
	if (!iox_send_pending(conn, waiter->target)) {
		iox_waiter_wake(waiter);
		return;
	}
	iox_list_append(&conn->flushes, &waiter->flushes);
	Py_INCREF(waiter);
}

static void run(Driver *self, const struct iox_op *op)
{
	switch (op->kind) {
	case IOX_OP_RETURN:
		iox_driver_release(self, op->group, op->bid);
		iox_group_unref(op->group);
		break;
	case IOX_OP_WRITE:
		run_write(op->conn, op->load);
		break;
	case IOX_OP_FLUSH:
		run_flush(op->conn, (Waiter *)op->load);
		break;
	case IOX_OP_CLOSE:
		iox_conn_close(op->conn);
		break;
	case IOX_OP_ABORT:
		iox_conn_abort(op->conn, IOX_CAUSE_ABORT, "connection aborted by abort()");
		break;
	case IOX_OP_UNPAUSE:
		iox_recv_unpause(op->conn);
		break;
	}
}

void iox_foreign_do(Driver *self)
{
	struct iox_ops *queue = &self->foreign;

	while (queue->done < queue->count) {
		struct iox_op op = queue->ops[queue->done++];

		run(self, &op);
	}
}

void iox_foreign_drop(Driver *self)
{
	struct iox_ops *queue = &self->foreign;

	while (queue->dropped < queue->done) {
		struct iox_op op = queue->ops[queue->dropped++];

		/* Before Python code runs, which may queue, do and drop more. */
		if (queue->dropped == queue->count)
			queue->dropped = queue->done = queue->count = 0;
		if (op.kind == IOX_OP_RETURN)
			continue;
		Py_DECREF(op.conn);
		Py_XDECREF(op.load);
	}
}
