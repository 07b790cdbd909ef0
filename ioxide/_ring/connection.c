/* SPDX-License-Identifier: MIT */
/*
 * The Python type of a connection: what a handler calls.  Its life is in life.c, its two halves are
 * in receive.c and send.c, and asyncio's face of it is in face.c.
 */
#include "connection.h"

#include "awaitable.h"
#include "errors.h"
#include "face.h"
#include "foreign.h"
#include "homes.h"
#include "life.h"
#include "mailbox.h"
#include "owner.h"
#include "receive.h"
#include "send.h"
#include "sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <structmember.h>

static PyObject *conn_recv(Connection *conn, PyObject *const *args, Py_ssize_t nargs)
{
	Py_ssize_t limit = -1;

	if (nargs > 1) {
		PyErr_Format(PyExc_TypeError, "recv() takes at most one argument, a limit in bytes (%zd given)",
			     nargs);
		return NULL;
	}
	if (nargs == 1 && args[0] != Py_None) {
		limit = PyNumber_AsSsize_t(args[0], PyExc_OverflowError);
		if (limit == -1 && PyErr_Occurred())
			return NULL;
		if (limit <= 0) {
			PyErr_Format(PyExc_ValueError, "recv() limit must be at least 1 byte, not %zd", limit);
			return NULL;
		}
	}
	return iox_await_new(conn, IOX_AWAIT_RECV, limit);
}

static PyObject *conn_recv_slices(Connection *conn, PyObject *Py_UNUSED(ignored))
{
	return iox_await_new(conn, IOX_AWAIT_READ, -1);
}

static PyObject *conn_write(Connection *conn, PyObject *data)
{
	int where = iox_conn_check_thread(conn);

	if (where)
		return where > 0 ? iox_foreign_write(conn, data) : NULL;
	return iox_send_write(conn, data);
}

static PyObject *conn_flush(Connection *conn, PyObject *Py_UNUSED(ignored))
{
	if (iox_driver_is_here(conn->driver))
		iox_mailbox_first(&conn->driver->foreign); /* it waits for that, too */
	return iox_await_new(conn, IOX_AWAIT_FLUSH, -1);
}

#define CONN_ACTION(name, call, on_worker)                                          \
	static PyObject *name(Connection *conn, PyObject *Py_UNUSED(ignored))       \
	{                                                                           \
		int where = iox_conn_check_thread(conn);                            \
									            \
		if (where < 0 || (where > 0 && (on_worker) < 0))                    \
			return NULL;                                                \
		if (!where) {                                                       \
			iox_mailbox_first(&conn->driver->foreign);                  \
			call;                                                       \
		}                                                                   \
		Py_RETURN_NONE;                                                     \
	}

CONN_ACTION(conn_close_method, iox_conn_close(conn), iox_foreign_close(conn, false))
CONN_ACTION(conn_abort_method, iox_conn_abort(conn, IOX_CAUSE_ABORT, "connection aborted by abort()"),
	    iox_foreign_close(conn, true))

/* On whatever thread the handler ran. */
static PyObject *conn_faulted(Connection *conn, PyObject *Py_UNUSED(ignored))
{
	iox_conn_set_cause(conn, IOX_CAUSE_FAULT);
	Py_RETURN_NONE;
}

static PyObject *conn_end_reads(Connection *conn, PyObject *Py_UNUSED(ignored))
{
	if (iox_conn_check_reactor(conn) < 0)
		return NULL;
	iox_recv_end(conn);
	Py_RETURN_NONE;
}

static PyObject *conn_close_threadsafe(Connection *conn, PyObject *Py_UNUSED(ignored))
{
	if (iox_foreign_close(conn, false) < 0)
		return NULL;
	Py_RETURN_NONE;
}

/* `settle(waiter)` is called on the reactor's thread, when _flushed(waiter) can tell the outcome. */
static PyObject *conn_flush_threadsafe(Connection *conn, PyObject *settle)
{
	Waiter *waiter = iox_waiter_new(conn->driver, settle);
	int ret;

	if (!waiter)
		return NULL;
	if (conn->driver->closed) {
		waiter->target = iox_send_target(conn);
		ret = iox_waiter_resume(waiter); /* no reactor is left to do it */
	} else {
		waiter->target = IOX_TARGET_NOW;
		ret = iox_foreign_flush(conn, waiter);
	}
	Py_DECREF(waiter);
	if (ret < 0)
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *conn_flushed(Connection *conn, PyObject *arg)
{
	int ready;

	if (!Py_IS_TYPE(arg, iox_WaiterType)) {
		PyErr_SetString(PyExc_TypeError, "_flushed() takes what settle() was called with");
		return NULL;
	}
	ready = iox_send_flush_state(conn, ((Waiter *)arg)->target);
	if (!ready)
		iox_raise_os_error(ECONNABORTED, "the reactor was stopped");
	if (ready <= 0)
		return NULL;
	Py_RETURN_NONE;
}

/* Not for other threads: when they use the number it may be another connection's. */
static PyObject *conn_fileno(Connection *conn, PyObject *Py_UNUSED(ignored))
{
	if (conn->fd >= 0 && iox_conn_check_thread(conn) < 0)
		return NULL;
	return PyLong_FromLong(conn->fd);
}

static PyObject *conn_get_fd(Connection *conn, void *Py_UNUSED(closure))
{
	return PyLong_FromLong(conn->fd);
}

/* In one call, because the reactor may close the descriptor at any time. */
static PyObject *conn_duplicate(Connection *conn, PyObject *Py_UNUSED(ignored))
{
	int fd = -1;

	if (conn->fd >= 0) {
		if (iox_conn_check_thread(conn) < 0)
			return NULL;
		fd = fcntl(conn->fd, F_DUPFD_CLOEXEC, 0);
		if (fd < 0)
			return PyErr_SetFromErrno(PyExc_OSError);
	}
	return PyLong_FromLong(fd);
}

static PyObject *conn_peername(Connection *conn, PyObject *Py_UNUSED(ignored))
{
	if (conn->fd < 0)
		Py_RETURN_NONE;
	return iox_conn_check_thread(conn) < 0 ? NULL : iox_socket_peername(conn->fd);
}

static PyObject *conn_sockname(Connection *conn, PyObject *Py_UNUSED(ignored))
{
	if (conn->fd < 0)
		Py_RETURN_NONE;
	return iox_conn_check_thread(conn) < 0 ? NULL : iox_socket_sockname(conn->fd);
}

static PyObject *conn_get_closed(Connection *conn, void *Py_UNUSED(closure))
{
	return PyBool_FromLong(conn->life.state != IOX_LIFE_OPEN || conn->life.ending);
}

static PyObject *conn_get_broken(Connection *conn, void *Py_UNUSED(closure))
{
	return PyBool_FromLong(conn->receive.error || conn->send.error);
}

static PyObject *conn_get_unsent(Connection *conn, void *Py_UNUSED(closure))
{
	return PyLong_FromSize_t(iox_send_unsent(conn) + conn->send.foreign_bytes);
}

static PyObject *conn_get_queued(Connection *conn, void *Py_UNUSED(closure))
{
	return PyLong_FromUnsignedLong(conn->receive.chunk_count);
}

static PyObject *conn_get_loop(Connection *conn, void *Py_UNUSED(closure))
{
	return Py_NewRef(conn->driver->home.loop ? conn->driver->home.loop : Py_None);
}

static int conn_traverse(Connection *conn, visitproc visit, void *arg)
{
	Py_VISIT(Py_TYPE(conn));
	Py_VISIT(conn->driver);
	Py_VISIT(conn->receive.reader);
	Py_VISIT(conn->face.waiter);
	Py_VISIT(conn->face.data_received);
	Py_VISIT(conn->on_start);
	return 0;
}

static int conn_clear(Connection *conn)
{
	Py_CLEAR(conn->receive.reader);
	iox_face_let_go(conn);
	Py_CLEAR(conn->on_start);
	return 0;
}

static void conn_dealloc(Connection *conn)
{
	PyTypeObject *type = Py_TYPE(conn);

	PyObject_GC_UnTrack(conn);
	if (conn->weakrefs)
		PyObject_ClearWeakRefs((PyObject *)conn);
	/* Nothing to close: the table holds a reference for as long as there is a descriptor. */
	conn_clear(conn);
	if (conn->receive.chunks != conn->receive.inline_chunks)
		PyMem_Free(conn->receive.chunks);
	Py_CLEAR(conn->driver);
	type->tp_free((PyObject *)conn);
	Py_DECREF(type);
}

PyDoc_STRVAR(conn_recv_doc,
"recv($self, limit=None, /)\n"
"--\n"
"\n"
"Return what has arrived: `await conn.recv()`.\n"
"\n"
"At least one byte, in order, at most `limit` bytes; the rest is kept.  b\"\" when the peer has ended its\n"
"side, and when this side was closed.  A cancelled recv() loses nothing.  Raises ConnectionResetError when\n"
"the peer reset the connection, ConnectionAbortedError when a clock (ServerConfig.read_timeout_ms) or\n"
"abort() ended it, and RuntimeError while another task reads and on another thread than the handler's.\n"
"ValueError for a `limit` below 1.");

PyDoc_STRVAR(conn_write_doc,
"write($self, data, /)\n"
"--\n"
"\n"
"Take `data`, any contiguous bytes-like object, and return.\n"
"\n"
"`data` may be changed afterwards: it is copied.  `bytes` of 32 KiB and more, and memoryviews of such `bytes`,\n"
"are kept alive and sent without a copy; subclasses of `bytes` are copied.\n"
"\n"
"The bytes leave at the end of the batch, those of one batch in one submission.  Raises BufferError when\n"
"more than ServerConfig.write_limit bytes would wait, BrokenPipeError or the peer's error when nothing can\n"
"be sent any more, MemoryError without changing anything, and RuntimeError on another thread than the\n"
"handler's.");

PyDoc_STRVAR(conn_flush_doc,
"flush($self, /)\n"
"--\n"
"\n"
"Wait until the kernel has taken everything written before this call: `await conn.flush()`.\n"
"\n"
"Any number of tasks may wait.  Raises what kept the bytes from being sent, ConnectionAbortedError when the\n"
"connection was aborted, and RuntimeError on another thread than the handler's.");

PyDoc_STRVAR(conn_close_doc,
"close($self, /)\n"
"--\n"
"\n"
"Send what was written, then FIN; discard what still arrives until the peer closes, too.\n"
"\n"
"May be called more than once.  Raises RuntimeError on another thread than the handler's.");

PyDoc_STRVAR(conn_abort_doc,
"abort($self, /)\n"
"--\n"
"\n"
"Drop what was not sent, and reset the connection (RST).\n"
"\n"
"Written bytes that the kernel takes at once are still sent.  May be called more than once.  Raises\n"
"RuntimeError on another thread than the handler's.");

PyDoc_STRVAR(conn_write_threadsafe_doc,
"write_threadsafe($self, data, /)\n"
"--\n"
"\n"
"write() from any thread: the reactor sends `data` in its next tick.\n"
"\n"
"Anything but `bytes` is copied at once, by the calling thread.\n"
"\n"
"The calls of one thread on a connection keep their order.  Raises what write() would raise now.  A write\n"
"that finds the connection ended when the reactor takes it is dropped, and counted in\n"
"Counters.foreign_drops.");

PyDoc_STRVAR(conn_close_threadsafe_doc,
"close_threadsafe($self, /)\n"
"--\n"
"\n"
"close() from any thread, after all that this thread wrote before.");

PyDoc_STRVAR(conn_fileno_doc,
"fileno($self, /)\n"
"--\n"
"\n"
"The descriptor, which stays the connection's own; -1 once it has ended.\n"
"\n"
"Raises RuntimeError on another thread than the handler's: when that thread uses the number, it may be\n"
"another file's.");

PyDoc_STRVAR(conn_recv_slices_doc,
"_recv_slices($self, /)\n"
"--\n"
"\n"
"For ReadBlock: the received buffers themselves, each as a Slice; [] at the end of the stream.");

PyDoc_STRVAR(conn_faulted_doc,
"_faulted($self, /)\n"
"--\n"
"\n"
"The handler raised: count the end in Counters.closes_fault.  From any thread.");

PyDoc_STRVAR(conn_end_reads_doc,
"_end_reads($self, /)\n"
"--\n"
"\n"
"Receive nothing any more, and end the stream for the reader; on the reactor's thread.");

PyDoc_STRVAR(conn_flush_threadsafe_doc,
"_flush_threadsafe($self, settle, /)\n"
"--\n"
"\n"
"flush() from any thread: `settle(waiter)` is called on the reactor's thread when _flushed(waiter) can tell\n"
"the outcome, and on the calling thread at once when the reactor has ended.");

PyDoc_STRVAR(conn_flushed_doc,
"_flushed($self, waiter, /)\n"
"--\n"
"\n"
"The outcome of _flush_threadsafe(): None, or raises the OSError that kept the bytes from being sent.");

PyDoc_STRVAR(conn_attach_doc,
"_attach($self, callback, context, /)\n"
"--\n"
"\n"
"For a transport: call `callback(what)` in `context` whenever something happens, until _detach().  `what`\n"
"is None; True where bytes were given to data_received() (_deliver_to()) in the same call; or the exception\n"
"which that has raised; or a waiter, where the context was in use and the loop calls it later.");

PyDoc_STRVAR(conn_deliver_to_doc,
"_deliver_to($self, data_received, /)\n"
"--\n"
"\n"
"For a transport: call `data_received(bytes)` with received bytes, at most 256 KiB at a time, in the\n"
"context of _attach(), instead of its callback.  None: the callback takes them by _take().");

PyDoc_STRVAR(conn_take_writes_doc,
"_take_writes($self, high, /)\n"
"--\n"
"\n"
"For a transport: let the method of _writer() take bytes; the transport's `_full()` is called when more than\n"
"`high` bytes wait to be sent.");

PyDoc_STRVAR(conn_refuse_writes_doc,
"_refuse_writes($self, /)\n"
"--\n"
"\n"
"For a transport: let the method of _writer() leave everything to the transport's `_write_slowly(data)`.");

PyDoc_STRVAR(conn_writer_doc,
"_writer($self, transport, /)\n"
"--\n"
"\n"
"For a transport: its write(), which refers to it.");

PyDoc_STRVAR(conn_detach_doc,
"_detach($self, /)\n"
"--\n"
"\n"
"Do not call the callback of _attach() again.");

PyDoc_STRVAR(conn_read_doc,
"_read($self, reading, /)\n"
"--\n"
"\n"
"Whether the callback is to hear of bytes.\n"
"\n"
"While it is not, what has come stays in the queue and nothing more is received, so that the peer meets a\n"
"closed window.");

PyDoc_STRVAR(conn_take_doc,
"_take($self, limit, /)\n"
"--\n"
"\n"
"At most `limit` received bytes; b\"\" at the end of the stream, None when there is nothing now.");

PyDoc_STRVAR(conn_take_into_doc,
"_take_into($self, buffer, /)\n"
"--\n"
"\n"
"Copy received bytes into `buffer`: how many, 0 at the end of the stream, -1 when there is nothing now.");

PyDoc_STRVAR(conn_put_doc,
"_put($self, data, /)\n"
"--\n"
"\n"
"write() without ServerConfig.write_limit; the number of bytes that wait now.");

PyDoc_STRVAR(conn_watch_doc,
"_watch($self, unsent, /)\n"
"--\n"
"\n"
"Call the callback when at most `unsent` bytes wait of what was written until now.");

PyDoc_STRVAR(conn_check_doc,
"_check($self, /)\n"
"--\n"
"\n"
"Raise the OSError that kept written bytes from being sent, if anything did.");

PyDoc_STRVAR(conn_end_writes_doc,
"_end_writes($self, /)\n"
"--\n"
"\n"
"FIN after what was written; reading goes on.");

PyDoc_STRVAR(conn_drop_doc,
"_drop($self, /)\n"
"--\n"
"\n"
"End the connection now: with a reset where bytes are cut off, otherwise by close(2) alone.");

PyDoc_STRVAR(conn_duplicate_doc,
"_duplicate($self, /)\n"
"--\n"
"\n"
"A duplicate of the descriptor (F_DUPFD_CLOEXEC), which is the caller's; -1 once the connection has ended.\n"
"Raises OSError when there is no descriptor left.");

PyDoc_STRVAR(conn_peername_doc,
"_peername($self, /)\n"
"--\n"
"\n"
"The address that accept(2) saw, also when the peer has reset since; None once the connection has ended.");

PyDoc_STRVAR(conn_sockname_doc,
"_sockname($self, /)\n"
"--\n"
"\n"
"Our own address (getsockname(2)); None once the connection has ended.");

PyDoc_STRVAR(conn_closed_doc,
"Whether close() or abort() was called, or the connection has ended.  From any thread.");

PyDoc_STRVAR(conn_unsent_doc,
"Written bytes that the kernel has not taken yet, those of other threads included.  From any thread.");

PyDoc_STRVAR(conn_fd_doc,
"The descriptor's number, for messages; -1 once the connection has ended.");

PyDoc_STRVAR(conn_broken_doc,
"Whether receiving or sending has failed.");

PyDoc_STRVAR(conn_queued_doc,
"Received buffers that nobody has read.");

PyDoc_STRVAR(conn_loop_doc,
"The loop of the reactor; None when it has ended.");

static PyMethodDef conn_methods[] = {
	{ "recv", (PyCFunction)conn_recv, METH_FASTCALL, conn_recv_doc },
	{ "_recv_slices", (PyCFunction)conn_recv_slices, METH_NOARGS, conn_recv_slices_doc },
	{ "write", (PyCFunction)conn_write, METH_O, conn_write_doc },
	{ "flush", (PyCFunction)conn_flush, METH_NOARGS, conn_flush_doc },
	{ "close", (PyCFunction)conn_close_method, METH_NOARGS, conn_close_doc },
	{ "abort", (PyCFunction)conn_abort_method, METH_NOARGS, conn_abort_doc },
	{ "_faulted", (PyCFunction)conn_faulted, METH_NOARGS, conn_faulted_doc },
	{ "_end_reads", (PyCFunction)conn_end_reads, METH_NOARGS, conn_end_reads_doc },
	{ "write_threadsafe", (PyCFunction)iox_foreign_write, METH_O, conn_write_threadsafe_doc },
	{ "close_threadsafe", (PyCFunction)conn_close_threadsafe, METH_NOARGS, conn_close_threadsafe_doc },
	{ "_flush_threadsafe", (PyCFunction)conn_flush_threadsafe, METH_O, conn_flush_threadsafe_doc },
	{ "_flushed", (PyCFunction)conn_flushed, METH_O, conn_flushed_doc },
	{ "fileno", (PyCFunction)conn_fileno, METH_NOARGS, conn_fileno_doc },
	{ "_attach", (PyCFunction)iox_face_attach, METH_VARARGS, conn_attach_doc },
	{ "_deliver_to", (PyCFunction)iox_face_deliver_to, METH_O, conn_deliver_to_doc },
	{ "_take_writes", (PyCFunction)iox_face_take_writes, METH_O, conn_take_writes_doc },
	{ "_refuse_writes", (PyCFunction)iox_face_refuse_writes, METH_NOARGS, conn_refuse_writes_doc },
	{ "_writer", (PyCFunction)iox_face_writer, METH_O, conn_writer_doc },
	{ "_detach", (PyCFunction)iox_face_detach, METH_NOARGS, conn_detach_doc },
	{ "_read", (PyCFunction)iox_face_read, METH_O, conn_read_doc },
	{ "_take", (PyCFunction)iox_face_take, METH_O, conn_take_doc },
	{ "_take_into", (PyCFunction)iox_face_take_into, METH_O, conn_take_into_doc },
	{ "_put", (PyCFunction)iox_face_put, METH_O, conn_put_doc },
	{ "_watch", (PyCFunction)iox_face_watch, METH_O, conn_watch_doc },
	{ "_check", (PyCFunction)iox_face_check, METH_NOARGS, conn_check_doc },
	{ "_end_writes", (PyCFunction)iox_face_end_writes, METH_NOARGS, conn_end_writes_doc },
	{ "_drop", (PyCFunction)iox_face_drop, METH_NOARGS, conn_drop_doc },
	{ "_duplicate", (PyCFunction)conn_duplicate, METH_NOARGS, conn_duplicate_doc },
	{ "_peername", (PyCFunction)conn_peername, METH_NOARGS, conn_peername_doc },
	{ "_sockname", (PyCFunction)conn_sockname, METH_NOARGS, conn_sockname_doc },
	{ NULL },
};

static PyGetSetDef conn_getset[] = {
	{ "closed", (getter)conn_get_closed, NULL, conn_closed_doc, NULL },
	{ "_fd", (getter)conn_get_fd, NULL, conn_fd_doc, NULL },
	{ "_broken", (getter)conn_get_broken, NULL, conn_broken_doc, NULL },
	{ "unsent", (getter)conn_get_unsent, NULL, conn_unsent_doc, NULL },
	{ "_queued", (getter)conn_get_queued, NULL, conn_queued_doc, NULL },
	{ "_loop", (getter)conn_get_loop, NULL, conn_loop_doc, NULL },
	{ NULL },
};

static PyMemberDef conn_members[] = {
	{ "__weaklistoffset__", T_PYSSIZET, offsetof(Connection, weakrefs), READONLY, NULL },
	{ NULL },
};

static PyType_Slot conn_slots[] = {
	{ Py_tp_doc, (void *)"One accepted socket; ioxide.Connection is the face with the documentation." },
	{ Py_tp_dealloc, (void *)conn_dealloc },
	{ Py_tp_traverse, (void *)conn_traverse },
	{ Py_tp_clear, (void *)conn_clear },
	{ Py_tp_members, (void *)conn_members },
	{ Py_tp_methods, (void *)conn_methods },
	{ Py_tp_getset, (void *)conn_getset },
	{ 0, NULL },
};

PyType_Spec iox_ConnectionSpec = {
	.name = "ioxide._ring._core.Connection",
	.basicsize = sizeof(Connection),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |
		 Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.slots = conn_slots,
};

PyTypeObject *iox_ConnectionType;
