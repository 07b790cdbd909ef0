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
#include "faults.h"
#include "homes.h"
#include "life.h"
#include "mailbox.h"
#include "notify.h"
#include "receive.h"
#include "send.h"
#include "submit.h"

/* What data_received() is given at most, as by asyncio's own transports, in bytes. */
#define PIECE_MAX ((Py_ssize_t)256 * 1024)

static void call_again(Connection *conn);

static bool something_to_take(const Connection *conn)
{
	return conn->receive.chunk_count || conn->receive.at_eof || conn->receive.error;
}

/*
 * Gives the protocol one piece.  None, or what data_received() has raised; NULL: an exception that is to
 * leave the loop is set.
 */
static PyObject *deliver(Connection *conn)
{
	PyObject *data_received = Py_NewRef(conn->face.data_received); /* set_protocol() may drop it meanwhile */
	PyObject *bytes = iox_recv_take(conn, PIECE_MAX), *result = NULL;
	PyObject *type, *raised, *traceback;

	if (bytes) {
		call_again(conn);
		result = PyObject_CallOneArg(data_received, bytes);
		Py_DECREF(bytes);
	}
	Py_DECREF(data_received);
	if (result) {
		Py_DECREF(result);
		Py_RETURN_NONE;
	}
	if (iox_unwinds())
		return NULL;
	PyErr_Fetch(&type, &raised, &traceback);
	PyErr_NormalizeException(&type, &raised, &traceback);
	if (traceback)
		PyException_SetTraceback(raised, traceback);
	Py_XDECREF(traceback);
	Py_DECREF(type);
	return raised;
}

/*
 * The loop was interrupted in the middle of what the transport is told.  What was not come to is done when
 * the loop is run again: asyncio's finds its file ready again then.
 */
static void call_once_more(Connection *conn)
{
	if (!conn->face.waiter)
		return;
	conn->face.told = true;
	iox_waiter_wake_next(conn->face.waiter);
}

/* The standing waiter was woken: bytes go to the protocol itself, all else to the transport's callback. */
static int woken(void *about, PyObject *callback)
{
	Connection *conn = about;
	PyObject *outcome, *result = NULL;
	bool done = false, called = false;

	Py_INCREF(conn);
	if (conn->face.data_received && conn->face.reads && conn->receive.chunk_count) {
		outcome = deliver(conn);
		if (outcome == Py_None) {
			done = !conn->face.waiter || !(conn->face.told || conn->send.error ||
						       conn->life.state == IOX_LIFE_GONE);
			Py_SETREF(outcome, Py_NewRef(Py_True));
		}
	} else {
		outcome = Py_NewRef(Py_None);
	}
	if (done) {
		result = Py_NewRef(Py_None);
	} else if (outcome) {
		conn->face.told = false;
		called = true;
		result = PyObject_CallOneArg(callback, outcome);
	}
	Py_XDECREF(outcome);
	if (!result && (called || conn->face.told) && iox_unwinds())
		call_once_more(conn);
	Py_DECREF(conn);
	Py_XDECREF(result);
	return result ? 0 : -1;
}

/*
 * _attach(callback, context): from now on call callback(what) in `context`, from dispatch, whenever
 * something happens.  What is None; or True where data_received() was given bytes in the same call; or
 * what that has raised.  A waiter instead of None: not from dispatch, because the context was in use.
 */
PyObject *iox_face_attach(Connection *conn, PyObject *args)
{
	PyObject *callback, *context;

	if (!PyArg_ParseTuple(args, "OO!:_attach", &callback, &PyContext_Type, &context) ||
	    iox_conn_check_reactor(conn) < 0)
		return NULL;
	if (conn->face.waiter || conn->receive.reader) {
		PyErr_SetString(PyExc_RuntimeError, "this connection has a transport or a reader already");
		return NULL;
	}
	conn->face.waiter = iox_waiter_standing(conn->driver, callback, context, woken, conn);
	if (!conn->face.waiter)
		return NULL;
	conn->face.taken = true;
	conn->face.acked = UINT64_MAX;
	if (conn->life.state == IOX_LIFE_GONE || conn->send.error)
		iox_face_wake(conn); /* it ended before anybody looked */
	Py_RETURN_NONE;
}

/* _detach(): do not call the callback again. */
PyObject *iox_face_detach(Connection *conn, PyObject *Py_UNUSED(ignored))
{
	if (iox_conn_check_reactor(conn) < 0)
		return NULL;
	iox_face_let_go(conn);
	Py_RETURN_NONE;
}

void iox_face_let_go(Connection *conn)
{
	Waiter *face = conn->face.waiter;

	conn->face.waiter = NULL;
	if (face)
		iox_waiter_dismiss(face); /* the ready queue may have it still */
	Py_CLEAR(conn->face.data_received);
}

/* _deliver_to(data_received): give received bytes to it, PIECE_MAX at most; None: the callback takes them. */
PyObject *iox_face_deliver_to(Connection *conn, PyObject *data_received)
{
	if (iox_conn_check_reactor(conn) < 0)
		return NULL;
	Py_XSETREF(conn->face.data_received, data_received == Py_None ? NULL : Py_NewRef(data_received));
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
	if (conn->face.waiter && something_to_take(conn))
		iox_waiter_wake(conn->face.waiter);
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
static int check_queue(Connection *conn, bool *eof)
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
	some = check_queue(conn, &eof);
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
	some = check_queue(conn, &eof);
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

/* _take_writes(high): let the transport's write() take bytes; when more than `high` wait, the transport is told. */
PyObject *iox_face_take_writes(Connection *conn, PyObject *arg)
{
	Py_ssize_t high = PyNumber_AsSsize_t(arg, NULL); /* a limit beyond any size is as good as none */

	if ((high == -1 && PyErr_Occurred()) || iox_conn_check_reactor(conn) < 0)
		return NULL;
	conn->face.high = high < 0 ? 0 : (size_t)high;
	conn->face.writes = true;
	Py_RETURN_NONE;
}

/* _refuse_writes(): from now on write() leaves everything to the transport's _write_slowly(). */
PyObject *iox_face_refuse_writes(Connection *conn, PyObject *Py_UNUSED(ignored))
{
	conn->face.writes = false;
	Py_RETURN_NONE;
}

static PyObject *str_write_slowly, *str_full;

/*
 * What write() of a transport belongs to: whoever keeps the method keeps the transport, to which the
 * connection does not refer by it.  Named so because "Transport.write" is what messages are to tell.
 */
typedef struct Pair {
	PyObject_HEAD
	Connection *conn;
	PyObject *transport;
} Pair;

static int pair_traverse(Pair *pair, visitproc visit, void *arg)
{
	Py_VISIT(pair->conn);
	Py_VISIT(pair->transport);
	return 0;
}

/* No tp_clear: the transport's dictionary, which is a part of every cycle through it, has one. */
static void pair_dealloc(Pair *pair)
{
	PyObject_GC_UnTrack(pair);
	Py_DECREF(pair->conn);
	Py_DECREF(pair->transport);
	PyObject_GC_Del(pair);
}

static PyTypeObject pair_type = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "ioxide._ring._core.Transport",
	.tp_basicsize = sizeof(Pair),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.tp_doc = "A connection and its transport.",
	.tp_dealloc = (destructor)pair_dealloc,
	.tp_traverse = (traverseproc)pair_traverse,
};

static PyObject *face_write(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	Connection *conn = ((Pair *)self)->conn;
	PyObject *transport = ((Pair *)self)->transport, *data, *result;

	if (nargs + (names ? PyTuple_GET_SIZE(names) : 0) != 1 ||
	    (!nargs && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "data"))) {
		PyErr_SetString(PyExc_TypeError, "write() takes one argument, data");
		return NULL;
	}
	data = args[0];
	if (!conn->face.writes || !(PyBytes_Check(data) || PyByteArray_Check(data) || PyMemoryView_Check(data)))
		return PyObject_CallMethodOneArg(transport, str_write_slowly, data);
	result = iox_conn_check_reactor(conn) < 0 ? NULL : iox_send_write(conn, data);
	if (!result) {
		if (!PyErr_ExceptionMatches(PyExc_OSError))
			return NULL;
		PyErr_Clear(); /* sending has failed: the callback, which is on its way, says why */
		Py_RETURN_NONE;
	}
	if (iox_send_unsent(conn) > conn->face.high)
		Py_SETREF(result, PyObject_CallMethodNoArgs(transport, str_full));
	return result;
}

PyDoc_STRVAR(face_write_doc,
"write($self, data)\n"
"--\n"
"\n"
"Send bytes, a bytearray or a memoryview with the end of this batch of callbacks.\n"
"\n"
"Never waits.  A failure to send is told by connection_lost().  TypeError for anything else, RuntimeError\n"
"after write_eof().");

/* _writer(transport): its write(). */
PyObject *iox_face_writer(Connection *conn, PyObject *transport)
{
	static PyMethodDef write = { "write", (PyCFunction)(void (*)(void))face_write,
				     METH_FASTCALL | METH_KEYWORDS, face_write_doc };
	PyObject *method;
	Pair *pair = PyObject_GC_New(Pair, &pair_type);

	if (!pair)
		return NULL;
	pair->conn = (Connection *)Py_NewRef(conn);
	pair->transport = Py_NewRef(transport);
	PyObject_GC_Track(pair);
	method = PyCFunction_New(&write, (PyObject *)pair);
	Py_DECREF(pair);
	return method;
}

int iox_face_init(void)
{
	str_write_slowly = PyUnicode_InternFromString("_write_slowly");
	str_full = PyUnicode_InternFromString("_full");
	return str_write_slowly && str_full && PyType_Ready(&pair_type) == 0 ? 0 : -1;
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
	size_t taken;
	int failed;

	if (iox_conn_check_reactor(conn) < 0)
		return NULL;
	conn->face.taken = true;
	iox_mailbox_first(&conn->driver->foreign);
	if (iox_conn_over(conn))
		return PyLong_FromLong(0);
	/* Between a wait and its batch, in a signal's handler or after one has raised, a silent SEND counts as such. */
	if ((taken = iox_send_taken(conn)))
		iox_conn_sent(conn, (int)taken, 0);
	/* asyncio's write() has sent by now what the kernel takes; abort() loses only the rest. */
	iox_send_now(conn);
	failed = conn->send.error;
	if (iox_face_cut_off(conn))
		iox_conn_abort(conn, IOX_CAUSE_ABORT, "the transport was aborted");
	else if (iox_send_zero_copy_pending(conn))
		/* All sent, not all acknowledged: abort() would have the kernel drop it (SEND_ZC). */
		iox_conn_close(conn);
	else
		iox_conn_abort(conn, IOX_CAUSE_EOF, NULL);
	return PyLong_FromLong(failed);
}
