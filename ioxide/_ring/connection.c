/* SPDX-License-Identifier: MIT */
/*
 * One accepted socket: its life and its Python type; its two halves are receive.c and send.c.
 *
 * A connection's descriptor, slabs and object are held until the terminal completion of every
 * operation the kernel has on them (kernel_refs), and its end is decided in one place,
 * iox_conn_progress().  Two owners want it: the kernel side, which ends with EOF or an error, and
 * the handler, which ends with close().  Whoever comes last, the life ends once.
 *
 *   close()   no more writes; what is staged is sent, then FIN; the peer's remaining bytes are
 *             thrown away until it closes too, or the read clock runs out
 *   abort()   nothing more is sent; what the kernel still has is cancelled, then RST
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

int iox_conn_check_thread(const Connection *conn)
{
	if (!conn->driver) {
		PyErr_SetString(PyExc_RuntimeError, "this connection was never attached to a reactor");
		return -1;
	}
	if (PyThread_get_thread_ident() != conn->driver->thread) {
		PyObject *name;

		if (iox_worker_here(conn->driver))
			return 1;
		name = conn->driver->loop ? PyObject_GetAttrString(conn->driver->loop, "reactor_name") : NULL;
		PyErr_Clear();
		PyErr_Format(PyExc_RuntimeError,
			     "this connection belongs to %V on thread %lu, not to thread %lu: "
			     "hand the work over with Reactor.post()",
			     name, "the reactor", conn->driver->thread, PyThread_get_thread_ident());
		Py_XDECREF(name);
		return -1;
	}
	return 0;
}

void iox_raise_os_error(int error, const char *what)
{
	PyObject *args;

	if (!what) {
		errno = error;
		PyErr_SetFromErrno(PyExc_OSError);
		return;
	}
	args = Py_BuildValue("is", error, what);
	if (args) {
		PyErr_SetObject(PyExc_OSError, args); /* OSError picks the subclass by errno */
		Py_DECREF(args);
	}
}

static bool submit_cancel(Connection *conn, enum iox_kind kind)
{
	struct io_uring_sqe *sqe = iox_driver_sqe(conn->driver);

	if (!sqe)
		return false;
	io_uring_prep_cancel64(sqe, iox_user_data(kind, conn->generation, conn->slot), 0);
	sqe->user_data = iox_user_data(IOX_KIND_CANCEL, 0, 0);
	return true;
}

bool iox_conn_submit(Connection *conn)
{
	if (conn->want & IOX_WANT_CANCEL) {
		if (conn->recv_armed && !submit_cancel(conn, IOX_KIND_RECV))
			return false;
		conn->want &= ~IOX_WANT_CANCEL;
	}
	if (conn->want & IOX_WANT_CANCEL_SEND) {
		if (conn->send_armed && !submit_cancel(conn, IOX_KIND_SEND))
			return false;
		conn->want &= ~IOX_WANT_CANCEL_SEND;
	}
	if (conn->want & IOX_WANT_RECV) {
		if (!conn->recv_armed && !conn->recv_held && !conn->aborted && conn->fd >= 0 &&
		    !iox_recv_submit(conn))
			return false;
		conn->want &= ~IOX_WANT_RECV;
	}
	if (conn->want & IOX_WANT_SEND) {
		if (!conn->send_armed && iox_send_unsent(conn) && !conn->aborted && !iox_send_submit(conn))
			return false;
		conn->want &= ~IOX_WANT_SEND;
	}
	return true;
}

static void count_close(const Connection *conn)
{
	struct iox_counters *counters = &conn->driver->counters;

	counters->closes++;
	switch ((enum iox_cause)conn->cause) {
	case IOX_CAUSE_NONE:
		if (conn->recv_errno)
			counters->closes_error++;
		else
			counters->closes_eof++;
		break;
	case IOX_CAUSE_EOF:
		counters->closes_eof++;
		break;
	case IOX_CAUSE_ERROR:
		counters->closes_error++;
		break;
	case IOX_CAUSE_READ_TIMEOUT:
		counters->closes_read_timeout++;
		break;
	case IOX_CAUSE_SEND_TIMEOUT:
		counters->closes_send_timeout++;
		break;
	case IOX_CAUSE_FAULT:
		counters->closes_fault++;
		break;
	case IOX_CAUSE_ABORT:
		counters->closes_abort++;
		break;
	case IOX_CAUSE_STOP:
		counters->closes_stop++;
		break;
	}
}

static void finalize(Connection *conn)
{
	Driver *driver = conn->driver;

	if (conn->aborted && !conn->fin_sent) {
		/*
		 * RST instead of FIN: the peer must not take a cut-off stream for a whole one.  After our
		 * FIN it has all there was, and a reset could only destroy what it has not read yet.
		 */
		struct linger reset = { .l_onoff = 1, .l_linger = 0 };

		setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	}
	if (!conn->lent)
		close(conn->fd);
	conn->fd = -1;
	count_close(conn);
	iox_recv_discard(conn);
	iox_list_remove(&conn->staged);
	iox_list_remove(&conn->starved);
	iox_list_remove(&conn->read_clock);
	iox_list_remove(&conn->send_clock);
	conn->want = 0;
	iox_batch_release(&driver->slabs, &conn->staging);
	iox_batch_release(&driver->slabs, &conn->sending);
	if (conn->group->incremental)
		iox_driver_drop_group(driver, conn->group);
	conn->group = NULL;
	iox_recv_wake(conn);
	iox_send_wake(conn, true);
	iox_face_wake(conn);
	iox_driver_forget(driver, conn);
}

/*
 * After our FIN the kernel alone knows what the peer has not acknowledged yet, and by itself goes on
 * trying for a quarter of an hour, with the pages of a SEND_ZC in its hands.  TCP_USER_TIMEOUT (tcp(7))
 * makes it drop a connection on which nothing is taken for so long: the write queue goes, so that the
 * notification comes, and the receive completes with ETIMEDOUT.  One system call, so only where the
 * clock of the peer's FIN, which bounds everything else, is later or would cut off what is lent.
 */
static void bound_the_unacknowledged(Connection *conn)
{
	unsigned timeout = (unsigned)conn->driver->send_timeout;

	if (conn->served && timeout && (timeout < iox_recv_fin_timeout(conn) || iox_send_lent(conn)))
		conn->bounded = !setsockopt(conn->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout,
					    sizeof(timeout));
}

void iox_conn_given_up(Connection *conn)
{
	conn->driver->counters.send_timeouts++;
	iox_conn_blame(conn, IOX_CAUSE_SEND_TIMEOUT);
}

/* Everything that follows from a change of state; the one place where a life ends. */
void iox_conn_progress(Connection *conn)
{
	if (conn->fd < 0)
		return;
	if (conn->aborted) {
		if (!conn->kernel_refs)
			finalize(conn);
		return;
	}
	if (!conn->closing && !conn->eof_wanted)
		return;
	if (conn->send_armed || (iox_send_unsent(conn) && !conn->send_errno))
		return;
	if (!conn->closing) {
		if (!conn->eof_sent && !conn->send_errno)
			shutdown(conn->fd, SHUT_WR);
		conn->eof_sent = true;
		return;
	}
	if (conn->send_errno) {
		/* Something was cut off: FIN would call the stream whole. */
		iox_conn_abort(conn, IOX_CAUSE_ERROR, "what was written could not be sent");
		return;
	}
	if (!conn->fin_sent) {
		conn->fin_sent = true;
		if (!conn->recv_errno) {
			shutdown(conn->fd, SHUT_WR);
			bound_the_unacknowledged(conn);
		}
	}
	/* The peer's FIN is waited for when it has taken everything: abort() would drop what is lent. */
	if (!iox_list_linked(&conn->read_clock) && !(conn->bounded && iox_send_lent(conn)))
		iox_recv_start_clock(conn);
	if (!conn->kernel_refs && (conn->at_eof || conn->recv_errno))
		finalize(conn);
}

void iox_conn_close(Connection *conn)
{
	if (conn->closing || conn->fd < 0)
		return;
	conn->closing = true;
	iox_recv_close(conn);
	iox_conn_progress(conn);
}

/*
 * A SEND_ZC is over only when the kernel has let go of every page, which is when the peer has
 * acknowledged them; shutdown() does not change that (issue #245 in the C# project).  connect(2) to
 * AF_UNSPEC does: it dissolves the association, resets, and drops the write queue (tcp_disconnect).
 */
static void purge(int fd)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };

	connect(fd, &none, sizeof(none));
}

void iox_conn_abort(Connection *conn, enum iox_cause cause, const char *reason)
{
	if (conn->aborted || conn->fd < 0)
		return;
	conn->aborted = true;
	iox_conn_blame(conn, cause);
	conn->driver->counters.aborts += reason != NULL;
	conn->abort_reason = reason;
	if (!conn->recv_errno)
		conn->recv_errno = ECONNABORTED;
	if (!conn->send_errno)
		conn->send_errno = ECONNABORTED;
	iox_send_drop(conn);
	iox_recv_wake(conn);
	iox_send_wake(conn, true);
	iox_face_wake(conn);
	iox_list_remove(&conn->starved);
	iox_list_remove(&conn->read_clock);
	iox_list_remove(&conn->send_clock);
	/*
	 * The ring holds the file, so close() alone would end nothing; shutdown() would, but its FIN
	 * would reach the peer before the RST.  So both operations are cancelled, and the descriptor
	 * goes with their last completion.
	 */
	conn->want &= ~(IOX_WANT_RECV | IOX_WANT_SEND);
	conn->recv_starved = false;
	if (iox_send_lent(conn))
		purge(conn->fd);
	if (conn->recv_armed)
		iox_want(conn, IOX_WANT_CANCEL);
	if (conn->send_armed)
		iox_want(conn, IOX_WANT_CANCEL_SEND);
	iox_conn_progress(conn);
}

static PyObject *conn_recv(Connection *conn, PyObject *const *args, Py_ssize_t nargs)
{
	Py_ssize_t limit = -1;

	if (nargs > 1) {
		PyErr_Format(PyExc_TypeError, "recv() takes at most one argument, a limit in bytes (%zd given)",
			     nargs);
		return NULL;
	}
	if (nargs == 1) {
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

static PyObject *conn_flush(Connection *conn, PyObject *Py_UNUSED(ignored))
{
	return iox_await_new(conn, IOX_AWAIT_FLUSH, -1);
}

#define CONN_ACTION(name, call, on_worker)                                          \
	static PyObject *name(Connection *conn, PyObject *Py_UNUSED(ignored))       \
	{                                                                           \
		int where = iox_conn_check_thread(conn);                            \
									            \
		if (where < 0 || (where > 0 && (on_worker) < 0))                    \
			return NULL;                                                \
		if (!where)                                                         \
			call;                                                       \
		Py_RETURN_NONE;                                                     \
	}

CONN_ACTION(conn_close_method, iox_conn_close(conn), iox_foreign_close(conn, false))
CONN_ACTION(conn_abort_method, iox_conn_abort(conn, IOX_CAUSE_ABORT, "connection aborted by abort()"),
	    iox_foreign_close(conn, true))

/* On whatever thread the handler ran. */
static PyObject *conn_faulted(Connection *conn, PyObject *Py_UNUSED(ignored))
{
	iox_conn_blame(conn, IOX_CAUSE_FAULT);
	Py_RETURN_NONE;
}

static PyObject *conn_end_reads(Connection *conn, PyObject *Py_UNUSED(ignored))
{
	if (iox_conn_check_thread(conn) < 0)
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

	if (!Py_IS_TYPE(arg, &iox_WaiterType)) {
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

/* Not for other threads: by the time that they use it the number may be another connection's. */
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

/* In one go with respect to the reactor, which may close the descriptor at any time. */
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

static PyObject *conn_get_closed(Connection *conn, void *Py_UNUSED(closure))
{
	return PyBool_FromLong(conn->closing || conn->aborted || conn->ending || conn->fd < 0);
}

static PyObject *conn_get_broken(Connection *conn, void *Py_UNUSED(closure))
{
	return PyBool_FromLong(conn->recv_errno || conn->send_errno || conn->aborted);
}

static PyObject *conn_get_unsent(Connection *conn, void *Py_UNUSED(closure))
{
	return PyLong_FromSize_t(iox_send_unsent(conn) + conn->foreign_bytes);
}

static PyObject *conn_get_queued(Connection *conn, void *Py_UNUSED(closure))
{
	return PyLong_FromUnsignedLong(conn->chunk_count);
}

static PyObject *conn_get_loop(Connection *conn, void *Py_UNUSED(closure))
{
	return Py_NewRef(conn->driver->loop ? conn->driver->loop : Py_None);
}

static int conn_traverse(Connection *conn, visitproc visit, void *arg)
{
	Py_VISIT(conn->driver);
	Py_VISIT(conn->reader);
	Py_VISIT(conn->face);
	Py_VISIT(conn->on_start);
	return 0;
}

static int conn_clear(Connection *conn)
{
	Py_CLEAR(conn->reader);
	Py_CLEAR(conn->face);
	Py_CLEAR(conn->on_start);
	return 0;
}

static void conn_dealloc(Connection *conn)
{
	PyObject_GC_UnTrack(conn);
	if (conn->weakrefs)
		PyObject_ClearWeakRefs((PyObject *)conn);
	/* The table holds a reference for as long as there is a descriptor: nothing to close here. */
	conn_clear(conn);
	if (conn->chunks != conn->inline_chunks)
		PyMem_Free(conn->chunks);
	Py_CLEAR(conn->driver);
	Py_TYPE(conn)->tp_free((PyObject *)conn);
}

static PyMethodDef conn_methods[] = {
	{ "recv", (PyCFunction)conn_recv, METH_FASTCALL, NULL },
	{ "_recv_slices", (PyCFunction)conn_recv_slices, METH_NOARGS, NULL },
	{ "write", (PyCFunction)iox_send_write, METH_O, NULL },
	{ "flush", (PyCFunction)conn_flush, METH_NOARGS, NULL },
	{ "close", (PyCFunction)conn_close_method, METH_NOARGS, NULL },
	{ "abort", (PyCFunction)conn_abort_method, METH_NOARGS, NULL },
	{ "_faulted", (PyCFunction)conn_faulted, METH_NOARGS, NULL },
	{ "_end_reads", (PyCFunction)conn_end_reads, METH_NOARGS, NULL },
	{ "write_threadsafe", (PyCFunction)iox_foreign_write, METH_O, NULL },
	{ "close_threadsafe", (PyCFunction)conn_close_threadsafe, METH_NOARGS, NULL },
	{ "_flush_threadsafe", (PyCFunction)conn_flush_threadsafe, METH_O, NULL },
	{ "_flushed", (PyCFunction)conn_flushed, METH_O, NULL },
	{ "fileno", (PyCFunction)conn_fileno, METH_NOARGS, NULL },
	{ "_attach", (PyCFunction)iox_face_attach, METH_VARARGS, NULL },
	{ "_detach", (PyCFunction)iox_face_detach, METH_NOARGS, NULL },
	{ "_read", (PyCFunction)iox_face_read, METH_O, NULL },
	{ "_take", (PyCFunction)iox_face_take, METH_O, NULL },
	{ "_take_into", (PyCFunction)iox_face_take_into, METH_O, NULL },
	{ "_put", (PyCFunction)iox_face_put, METH_O, NULL },
	{ "_watch", (PyCFunction)iox_face_watch, METH_O, NULL },
	{ "_check", (PyCFunction)iox_face_check, METH_NOARGS, NULL },
	{ "_end_writes", (PyCFunction)iox_face_end_writes, METH_NOARGS, NULL },
	{ "_own", (PyCFunction)iox_face_own, METH_NOARGS, NULL },
	{ "_drop", (PyCFunction)iox_face_drop, METH_NOARGS, NULL },
	{ "_duplicate", (PyCFunction)conn_duplicate, METH_NOARGS, NULL },
	{ NULL },
};

static PyGetSetDef conn_getset[] = {
	{ "closed", (getter)conn_get_closed, NULL, NULL, NULL },
	{ "_fd", (getter)conn_get_fd, NULL, NULL, NULL },
	{ "_broken", (getter)conn_get_broken, NULL, NULL, NULL },
	{ "unsent", (getter)conn_get_unsent, NULL, NULL, NULL },
	{ "_queued", (getter)conn_get_queued, NULL, NULL, NULL },
	{ "_loop", (getter)conn_get_loop, NULL, NULL, NULL },
	{ NULL },
};

PyTypeObject iox_ConnectionType = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "ioxide._ring._core.Connection",
	.tp_basicsize = sizeof(Connection),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |
		    Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.tp_doc = "One accepted socket; ioxide.Connection is the face with the documentation.",
	.tp_dealloc = (destructor)conn_dealloc,
	.tp_traverse = (traverseproc)conn_traverse,
	.tp_clear = (inquiry)conn_clear,
	.tp_weaklistoffset = offsetof(Connection, weakrefs),
	.tp_methods = conn_methods,
	.tp_getset = conn_getset,
};

int iox_connection_init(PyObject *module)
{
	return PyModule_AddType(module, &iox_ConnectionType);
}
