/* SPDX-License-Identifier: MIT */
/*
 * The other face of a connection: what an asyncio transport asks of the same core.
 *
 * A handler parks a Waiter of its own with each await.  A transport has one standing Waiter, whose
 * callback is a method of the transport: it goes through the same ready queue and is called from the
 * same place, for bytes and the end of the stream while the protocol reads, when as much was sent as
 * the transport wants to hear of, and when the connection is over.
 */
#include "face.h"

#include "errors.h"
#include "homes.h"
#include "life.h"
#include "mailbox.h"
#include "notify.h"
#include "receive.h"
#include "send.h"
#include "submit.h"

static bool something_to_take(const Connection *conn)
{
	return conn->receive.chunk_count || conn->receive.at_eof || conn->receive.error;
}

/*
 * _attach(callback, context): from now on call callback(waiter) in `context`, from dispatch, whenever
 * something happens.
 */
PyObject *iox_face_attach(Connection *conn, PyObject *args)
{
	PyObject *callback, *context;

	if (!PyArg_ParseTuple(args, "OO!:_attach", &callback, &PyContext_Type, &context) ||
	    iox_conn_check_reactor(conn) < 0)
		return NULL;
	if (conn->face.waiter || conn->receive.reader) {
		PyErr_SetString(PyExc_RuntimeError, "this connection has a face already");
		return NULL;
	}
	conn->face.waiter = iox_waiter_standing(conn->driver, callback, context);
	if (!conn->face.waiter)
		return NULL;
	conn->face.acked = UINT64_MAX;
	if (conn->life.state == IOX_LIFE_GONE || conn->send.error)
		iox_face_wake(conn); /* it ended before anybody looked */
	Py_RETURN_NONE;
}

/* _detach(): do not call the callback again. */
PyObject *iox_face_detach(Connection *conn, PyObject *Py_UNUSED(ignored))
{
	Waiter *face = conn->face.waiter;

	if (iox_conn_check_reactor(conn) < 0)
		return NULL;
	conn->face.waiter = NULL;
	if (face)
		iox_waiter_dismiss(face);
	Py_RETURN_NONE;
}

/*
 * _read(reading): whether the callback is to hear of bytes.  While it is not, what has come stays in
 * the queue and nothing more is received, so that the peer meets a closed window.
 */
PyObject *iox_face_read(Connection *conn, PyObject *arg)
{
	int reading = PyObject_IsTrue(arg);

	if (reading < 0 || iox_conn_check_reactor(conn) < 0)
		return NULL;
	conn->face.reads = reading;
	if (conn->life.state != IOX_LIFE_OPEN)
		Py_RETURN_NONE;
	conn->receive.held = !reading;
	if (!reading) {
		if (conn->receive.state == IOX_RECEIVE_ARMED)
			iox_recv_cancel(conn);
		Py_RETURN_NONE;
	}
	if (conn->life.want & IOX_WANT_CANCEL && !conn->receive.paused) {
		/* Paused and resumed within one step: nothing was submitted. */
		conn->life.want &= ~IOX_WANT_CANCEL;
		if (conn->receive.state == IOX_RECEIVE_CANCELLING)
			iox_receive_set(conn, IOX_RECEIVE_ARMED);
	}
	if (something_to_take(conn))
		iox_face_wake(conn);
	if (conn->receive.state == IOX_RECEIVE_IDLE && !conn->receive.paused && !conn->receive.at_eof &&
	    !conn->receive.error)
		iox_want(conn, IOX_WANT_RECV);
	Py_RETURN_NONE;
}

/*
 * One callback takes one piece.  What is left makes one more call, but with the next tick: between two
 * of its callbacks a protocol may count on what it has set in motion, as with asyncio's transports.
 */
static void call_again(Connection *conn)
{
	if (conn->face.waiter && conn->face.reads && something_to_take(conn))
		iox_waiter_wake_next(conn->face.waiter);
}

/* 1 bytes, 0 nothing now, -1 exception; *eof: the end of the stream */
static int look(Connection *conn, bool *eof)
{
	*eof = false;
	if (iox_conn_check_reactor(conn) < 0)
		return -1;
	if (conn->receive.chunk_count)
		return 1;
	if (iox_recv_ready(conn) < 0)
		return -1;
	*eof = conn->receive.at_eof;
	return 0;
}

/*
 * _take(limit): at most `limit` received bytes, b"" at the end of the stream, None when there is
 * nothing now.
 */
PyObject *iox_face_take(Connection *conn, PyObject *arg)
{
	Py_ssize_t limit = PyNumber_AsSsize_t(arg, PyExc_OverflowError);
	PyObject *bytes;
	bool eof;
	int some;

	if (limit < 0) {
		if (!PyErr_Occurred())
			PyErr_SetString(PyExc_ValueError, "the limit must not be negative");
		return NULL;
	}
	some = look(conn, &eof);
	if (some < 0)
		return NULL;
	if (!some && !eof)
		Py_RETURN_NONE;
	bytes = iox_recv_take(conn, limit);
	if (some && bytes)
		call_again(conn);
	return bytes;
}

/*
 * _take_into(buffer): copy received bytes into it; how many, 0 at the end of the stream, -1 when there
 * is nothing now.
 */
PyObject *iox_face_take_into(Connection *conn, PyObject *buffer)
{
	Py_ssize_t count = 0;
	Py_buffer view;
	bool eof;
	int some;

	if (PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE) < 0)
		return NULL;
	some = look(conn, &eof);
	if (some > 0) {
		count = (Py_ssize_t)iox_recv_copy(conn, view.buf, (size_t)view.len);
		call_again(conn);
	}
	PyBuffer_Release(&view);
	if (some < 0)
		return NULL;
	return PyLong_FromSsize_t(some || eof ? count : -1);
}

/* _put(data): write(), which refuses no size of a transport's connection; how many bytes wait now. */
PyObject *iox_face_put(Connection *conn, PyObject *data)
{
	PyObject *result = iox_conn_check_reactor(conn) < 0 ? NULL : iox_send_write(conn, data);

	if (!result)
		return NULL;
	Py_DECREF(result);
	return PyLong_FromSize_t(iox_send_unsent(conn));
}

/* _watch(unsent): call when of what was written until now at most so many bytes wait. */
PyObject *iox_face_watch(Connection *conn, PyObject *arg)
{
	size_t low = PyLong_AsSize_t(arg);

	if ((low == (size_t)-1 && PyErr_Occurred()) || iox_conn_check_reactor(conn) < 0)
		return NULL;
	conn->face.acked = conn->send.bytes_written > low ? conn->send.bytes_written - low : 0;
	if (conn->send.bytes_acked >= conn->face.acked || conn->send.error ||
	    conn->life.state == IOX_LIFE_GONE) {
		conn->face.acked = UINT64_MAX;
		iox_face_wake(conn);
	}
	Py_RETURN_NONE;
}

/* _check(): raise what kept written bytes from being sent, if anything did. */
PyObject *iox_face_check(Connection *conn, PyObject *Py_UNUSED(ignored))
{
	if (conn->send.error) {
		iox_raise_os_error(conn->send.error, conn->life.abort_reason);
		return NULL;
	}
	Py_RETURN_NONE;
}

/* _end_writes(): FIN after what was written; reading goes on. */
PyObject *iox_face_end_writes(Connection *conn, PyObject *Py_UNUSED(ignored))
{
	if (iox_conn_check_reactor(conn) < 0)
		return NULL;
	iox_mailbox_first(&conn->driver->foreign);
	conn->send.eof_wanted = true;
	iox_conn_progress(conn);
	Py_RETURN_NONE;
}

/*
 * What we had not sent, or what the peer had sent in vain.  For the latter the kernel resets by itself
 * while the bytes are in its own queue (RFC 1122, 4.2.2.13); here they may be in ours.
 */
bool iox_face_cut_off(const Connection *conn)
{
	return conn->send.armed || conn->send.error || conn->receive.error || iox_send_unsent(conn) ||
	       conn->receive.chunk_count;
}

/*
 * _drop(): end the connection now, with a reset where anything is cut off.  Otherwise by close(2) alone:
 * after shutdown(2) SO_LINGER would not hold, and other holders of the file would lose the connection.
 * Returns the errno with which sending had failed, 0 where it had not.
 */
PyObject *iox_face_drop(Connection *conn, PyObject *Py_UNUSED(ignored))
{
	int failed;

	if (iox_conn_check_reactor(conn) < 0)
		return NULL;
	iox_mailbox_first(&conn->driver->foreign);
	if (iox_conn_over(conn))
		return PyLong_FromLong(0);
	/* asyncio's write() has sent by now what the kernel takes; abort() loses only the rest. */
	iox_send_now(conn);
	failed = conn->send.error;
	if (iox_face_cut_off(conn))
		iox_conn_abort(conn, IOX_CAUSE_ABORT, "the transport was aborted");
	else if (iox_send_lent(conn))
		/* All sent, not all acknowledged: abort() would have the kernel drop it (SEND_ZC). */
		iox_conn_close(conn);
	else
		iox_conn_abort(conn, IOX_CAUSE_EOF, NULL);
	return PyLong_FromLong(failed);
}
