/* SPDX-License-Identifier: MIT */
/*
 * Calls of other threads on a connection; they go through the mailbox.
 *
 * A caller appends an operation, then wakes the reactor (iox_driver_wake()).  The reactor runs all that is
 * queued at the top of wait(), after it has cleared the flag of the wake: what is appended later finds the flag
 * clear and writes another wake.  The GIL guards the queue itself.
 *
 * The reactor's own thread may queue operations as well, and may have waited for a thread that did.  So a call
 * made there that has an order (write(), flush(), close(), abort()) first runs what is queued
 * (iox_mailbox_first()): otherwise the reactor's own bytes would overtake.
 *
 * Nothing here blocks, and a caller never waits for room: write_limit counts what is queued here, too.
 */
#include "foreign.h"

#include "errors.h"
#include "life.h"
#include "send.h"
#include "wake.h"

#include <errno.h>

static void run_write(const struct iox_op *op)
{
	Connection *conn = op->conn;
	size_t length = (size_t)PyBytes_GET_SIZE(op->payload);

	conn->send.foreign_bytes -= length;
	if (conn->send.error || conn->life.state != IOX_LIFE_OPEN) {
		conn->send.bytes_dropped += length; /* the connection has ended: a flush of these bytes raises */
		conn->driver->counters.bytes_unsent += length;
		conn->driver->counters.foreign_drops++;
		iox_send_wake(conn, false);
	} else if (length >= IOX_HOLD_FROM ? !iox_send_hold(conn, PyBytes_AS_STRING(op->payload), length, op->payload)
					   : !iox_send_stage(conn, PyBytes_AS_STRING(op->payload), length)) {
		conn->driver->counters.bytes_unsent += length;
		iox_conn_abort(conn, IOX_CAUSE_ERROR, "no memory to stage what another thread wrote");
	}
}

static void run_flush(const struct iox_op *op)
{
	Waiter *waiter = (Waiter *)op->payload;

	if (waiter->state != IOX_WAITER_PENDING)
		return; /* cancelled meanwhile */
	if (waiter->target == IOX_TARGET_NOW)
		waiter->target = iox_send_target(op->conn);
	if (!iox_send_pending(op->conn, waiter->target)) {
		iox_waiter_wake(waiter);
		return;
	}
	iox_list_append(&op->conn->send.flushes, &waiter->flushes);
	Py_INCREF(waiter);
}

static void run_close(const struct iox_op *op)
{
	iox_conn_close(op->conn);
}

static void run_abort(const struct iox_op *op)
{
	iox_conn_abort(op->conn, IOX_CAUSE_ABORT, "connection aborted by abort()");
}

static int push(Connection *conn, void (*run)(const struct iox_op *op), PyObject *payload)
{
	if (iox_driver_queue(conn->driver, (struct iox_op){ .run = run, .conn = conn, .payload = payload }))
		return 0;
	PyErr_NoMemory();
	return -1;
}

PyObject *iox_foreign_write(Connection *conn, PyObject *data)
{
	PyObject *bytes;
	size_t length;
	int ret;

	/* Before any check: it may run Python code, which may end this connection. */
	bytes = PyBytes_CheckExact(data) ? Py_NewRef(data) : PyBytes_FromObject(data);
	if (!bytes)
		return NULL;
	length = (size_t)PyBytes_GET_SIZE(bytes);
	ret = iox_send_check(conn, length);
	if (ret == 0 && conn->life.ending) {
		iox_raise_os_error(EPIPE, "write() on a connection that was closed");
		ret = -1;
	}
	if (ret == 0 && length) {
		ret = push(conn, run_write, bytes);
		if (ret == 0) {
			conn->send.foreign_bytes += length;
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
	return push(conn, run_flush, (PyObject *)waiter);
}

int iox_foreign_close(Connection *conn, bool abort)
{
	if (iox_conn_over(conn) || conn->driver->closed ||
	    (!abort && (conn->life.state == IOX_LIFE_CLOSING || conn->life.ending)))
		return 0;
	if (push(conn, abort ? run_abort : run_close, NULL) < 0)
		return -1;
	conn->life.ending = true;
	conn->driver->counters.foreign_closes++;
	return 0;
}
