/* SPDX-License-Identifier: MIT */
/*
 * One accepted socket: its receive queue, its write slabs and its life.
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
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Without a read clock, how long a peer may ignore our FIN, in ms. */
#define LINGER_LIMIT 60000

static const char not_here[] = "connection has ended";

int iox_conn_check_thread(const Connection *conn)
{
	if (!conn->driver) {
		PyErr_SetString(PyExc_RuntimeError, "this connection was never attached to a reactor");
		return -1;
	}
	if (PyThread_get_thread_ident() != conn->driver->thread) {
		PyErr_Format(PyExc_RuntimeError,
			     "this connection belongs to the reactor on thread %lu, not to thread %lu: "
			     "hand the work over with Reactor.post()",
			     conn->driver->thread, PyThread_get_thread_ident());
		return -1;
	}
	return 0;
}

static void raise_os_error(int error, const char *what)
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

/* ---- Receive ------------------------------------------------------------------------------ */

static bool chunk_push(Connection *conn, struct iox_chunk chunk)
{
	if (conn->chunk_count == conn->chunk_capacity) {
		uint32_t capacity = conn->chunk_capacity * 2;
		struct iox_chunk *chunks = PyMem_Malloc(capacity * sizeof(*chunks));

		if (!chunks)
			return false;
		for (uint32_t i = 0; i < conn->chunk_count; i++)
			chunks[i] = conn->chunks[(conn->chunk_head + i) & (conn->chunk_capacity - 1)];
		if (conn->chunks != conn->inline_chunks)
			PyMem_Free(conn->chunks);
		conn->chunks = chunks;
		conn->chunk_capacity = capacity;
		conn->chunk_head = 0;
	}
	conn->chunks[(conn->chunk_head + conn->chunk_count++) & (conn->chunk_capacity - 1)] = chunk;
	return true;
}

static struct iox_chunk *chunk_first(Connection *conn)
{
	return &conn->chunks[conn->chunk_head];
}

/* Drops the first chunk; its buffer is the caller's now. */
static void chunk_pop(Connection *conn)
{
	conn->chunk_head = (conn->chunk_head + 1) & (conn->chunk_capacity - 1);
	if (--conn->chunk_count == 0 && conn->recv_paused && !conn->reads_ended) {
		conn->recv_paused = false;
		iox_want(conn, IOX_WANT_RECV);
	}
}

static void chunks_discard(Connection *conn)
{
	while (conn->chunk_count) {
		uint16_t bid = chunk_first(conn)->bid;

		chunk_pop(conn);
		iox_driver_recycle(conn->driver, bid);
	}
}

int iox_conn_recv_ready(Connection *conn)
{
	if (conn->chunk_count || conn->reads_ended)
		return 1;
	if (conn->recv_errno) {
		raise_os_error(conn->recv_errno, conn->abort_reason);
		return -1;
	}
	return conn->at_eof || conn->closing || conn->fd < 0;
}

PyObject *iox_conn_take(Connection *conn, Py_ssize_t limit)
{
	size_t total = 0;
	PyObject *bytes;
	char *to;

	if (!conn->chunk_count)
		return PyBytes_FromStringAndSize(NULL, 0);
	for (uint32_t i = 0; i < conn->chunk_count; i++)
		total += conn->chunks[(conn->chunk_head + i) & (conn->chunk_capacity - 1)].length;
	if (limit >= 0 && (size_t)limit < total)
		total = (size_t)limit;
	bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)total);
	if (!bytes)
		return NULL;
	to = PyBytes_AS_STRING(bytes);
	while (total) {
		struct iox_chunk *chunk = chunk_first(conn);
		uint32_t step = chunk->length < total ? chunk->length : (uint32_t)total;

		memcpy(to, iox_ring_buffer(conn->driver->ring, chunk->bid) + chunk->offset, step);
		to += step;
		total -= step;
		chunk->offset += step;
		chunk->length -= step;
		if (!chunk->length) {
			uint16_t bid = chunk->bid;

			chunk_pop(conn);
			iox_driver_recycle(conn->driver, bid);
		}
	}
	return bytes;
}

PyObject *iox_conn_take_slices(Connection *conn)
{
	PyObject *list = PyList_New(0);

	while (list && conn->chunk_count) {
		Slice *slice = PyObject_New(Slice, &iox_SliceType);

		if (!slice)
			goto error;
		slice->driver = (Driver *)Py_NewRef(conn->driver);
		slice->chunk = *chunk_first(conn);
		slice->exports = 0;
		slice->ended = false;
		slice->driver->slices_out++;
		chunk_pop(conn); /* from here on the slice gives the buffer back */
		if (PyList_Append(list, (PyObject *)slice) < 0) {
			Py_DECREF(slice);
			goto error;
		}
		Py_DECREF(slice);
	}
	return list;
error:
	Py_DECREF(list);
	return NULL;
}

static void start_read_clock(Connection *conn)
{
	Driver *driver = conn->driver;
	uint64_t timeout = driver->read_timeout;

	if (!timeout && conn->fin_sent)
		timeout = LINGER_LIMIT;
	iox_list_remove(&conn->read_clock);
	if (!timeout)
		return;
	conn->read_deadline = driver->now + timeout;
	iox_list_append(&driver->read_clocks, &conn->read_clock);
}

int iox_conn_park_reader(Connection *conn, Waiter *waiter)
{
	conn->reader = (Waiter *)Py_NewRef(waiter);
	start_read_clock(conn);
	return 0;
}

static void wake_reader(Connection *conn)
{
	if (!conn->reader)
		return;
	/* Its clock stops here: clocks are looked at between this and the task's step. */
	if (!conn->fin_sent)
		iox_list_remove(&conn->read_clock);
	iox_waiter_wake(conn->reader);
}

static void recv_terminal(Connection *conn)
{
	conn->recv_armed = conn->recv_cancelling = false;
	conn->kernel_refs--;
}

void iox_conn_on_recv(Connection *conn, int res, unsigned flags)
{
	Driver *driver = conn->driver;
	bool more = flags & IOX_CQE_F_MORE;

	/*
	 * Kernel and handler both drop a connection from iox_conn_progress(); hold it over this.
	 */
	Py_INCREF(conn);
	if (!more)
		recv_terminal(conn);

	if (res > 0 && flags & IOX_CQE_F_BUFFER) {
		struct iox_chunk chunk = {
			.offset = 0,
			.length = (uint32_t)res,
			.bid = (uint16_t)(flags >> IOX_CQE_BUFFER_SHIFT),
		};

		driver->counters.bytes_received += (uint64_t)res;
		if (conn->closing || conn->reads_ended) {
			iox_driver_recycle(driver, chunk.bid);
		} else if (!chunk_push(conn, chunk)) {
			iox_driver_recycle(driver, chunk.bid);
			iox_conn_abort(conn, "no memory to queue received bytes");
		} else {
			wake_reader(conn);
		}
	} else if (res == 0) {
		conn->at_eof = true;
		wake_reader(conn);
	} else if (res == -ENOBUFS) {
		/* Not the peer's fault: wait for a buffer, and let its clock begin again. */
		driver->counters.recv_enobufs++;
		if (iox_list_linked(&conn->read_clock))
			start_read_clock(conn);
		if (!iox_list_linked(&conn->starved))
			iox_list_append(&driver->starved, &conn->starved);
	} else if (res == -ECANCELED && !conn->aborted) {
		/* Our own pause; what to do next is decided below. */
	} else if (res < 0) {
		if (!conn->recv_errno && !conn->closing)
			conn->recv_errno = -res;
		else
			conn->at_eof = true;
		wake_reader(conn);
	}

	if (conn->recv_armed) {
		if (conn->chunk_count >= driver->recv_queue_entries && !conn->recv_cancelling) {
			conn->recv_cancelling = conn->recv_paused = true;
			driver->counters.recv_pauses++;
			iox_want(conn, IOX_WANT_CANCEL);
		}
	} else if (!conn->at_eof && !conn->recv_errno && !conn->aborted &&
		   !iox_list_linked(&conn->starved)) {
		/*
		 * A multishot ends for reasons of its own (a full CQ, a cancel that raced): arm it again,
		 * unless the queue is full.  A pause that was asked for ends when the queue is empty.
		 */
		if (conn->chunk_count >= driver->recv_queue_entries && !conn->recv_paused) {
			conn->recv_paused = true;
			driver->counters.recv_pauses++;
		}
		if (!conn->chunk_count)
			conn->recv_paused = false;
		if (!conn->recv_paused)
			iox_want(conn, IOX_WANT_RECV);
	}
	iox_conn_progress(conn);
	Py_DECREF(conn);
}

/* ---- Send --------------------------------------------------------------------------------- */

static size_t unsent(const Connection *conn)
{
	return conn->staging.used + (conn->sending.used - conn->sent);
}

int iox_conn_flush_state(Connection *conn, uint64_t target)
{
	if (conn->bytes_acked >= target)
		return 1;
	if (conn->send_errno) {
		raise_os_error(conn->send_errno, conn->abort_reason);
		return -1;
	}
	if (conn->fd < 0 || conn->aborted) {
		raise_os_error(ECONNABORTED, conn->abort_reason ? conn->abort_reason : not_here);
		return -1;
	}
	return 0;
}

static void wake_flushers(Connection *conn, bool all)
{
	struct iox_node *node = conn->flushes.next;

	while (node != &conn->flushes) {
		Waiter *waiter = IOX_ENTRY(node, Waiter, flushes);

		node = node->next;
		if (all || waiter->target <= conn->bytes_acked) {
			iox_list_remove(&waiter->flushes);
			iox_waiter_wake(waiter);
		}
	}
}

static void drop_staging(Connection *conn)
{
	iox_slab_release(&conn->driver->slabs, &conn->staging);
	conn->want &= ~IOX_WANT_SEND;
}

static void send_failed(Connection *conn, int error)
{
	conn->send_errno = error;
	drop_staging(conn);
	wake_flushers(conn, true);
}

void iox_conn_on_send(Connection *conn, int res)
{
	Driver *driver = conn->driver;

	Py_INCREF(conn);
	conn->kernel_refs--;
	conn->send_armed = false;
	iox_list_remove(&conn->send_clock);

	if (res > 0) {
		if ((size_t)res > conn->sending.used - conn->sent)
			res = (int)(conn->sending.used - conn->sent); /* a forged completion */
		conn->sent += (size_t)res;
		conn->bytes_acked += (uint64_t)res;
		driver->counters.bytes_sent += (uint64_t)res;
	}
	if (res < 0 && res != -EINTR && res != -EAGAIN) {
		if (!conn->aborted)
			send_failed(conn, -res);
	} else if (res == 0 && !conn->aborted) {
		send_failed(conn, EPIPE);
	}

	if (!conn->send_errno && !conn->aborted && conn->sent < conn->sending.used) {
		/* Only on a live connection: a cancelled SEND reports what it moved, like a short one. */
		driver->counters.partial_sends++;
		iox_want(conn, IOX_WANT_SEND);
	} else {
		iox_slab_release(&driver->slabs, &conn->sending);
		conn->sent = 0;
		if (conn->staging.used)
			iox_want(conn, IOX_WANT_SEND);
		wake_flushers(conn, conn->aborted);
	}
	iox_conn_progress(conn);
	Py_DECREF(conn);
}

static PyObject *conn_write(Connection *conn, PyObject *data)
{
	Driver *driver = conn->driver;
	Py_buffer view;
	size_t limit;

	if (iox_conn_check_thread(conn) < 0)
		return NULL;
	if (conn->send_errno) {
		raise_os_error(conn->send_errno, conn->abort_reason);
		return NULL;
	}
	if (conn->closing || conn->aborted || conn->fd < 0) {
		raise_os_error(EPIPE, "write() on a connection that was closed");
		return NULL;
	}
	if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
		return NULL;
	limit = driver->write_limit;
	if ((size_t)view.len > limit || unsent(conn) + (size_t)view.len > limit) {
		PyErr_Format(PyExc_BufferError,
			     "%zd bytes do not fit: %zu wait to be sent and write_limit is %zu bytes; "
			     "await flush() between writes, or raise write_limit",
			     view.len, unsent(conn), limit);
		PyBuffer_Release(&view);
		return NULL;
	}
	if (view.len) {
		if (!iox_slab_reserve(&driver->slabs, &conn->staging, (size_t)view.len)) {
			PyBuffer_Release(&view);
			return PyErr_NoMemory();
		}
		memcpy(conn->staging.mem + conn->staging.used, view.buf, (size_t)view.len);
		conn->staging.used += (size_t)view.len;
		conn->bytes_written += (uint64_t)view.len;
		if (!conn->send_armed)
			iox_want(conn, IOX_WANT_SEND);
	}
	PyBuffer_Release(&view);
	Py_RETURN_NONE;
}

/* ---- Submission --------------------------------------------------------------------------- */

static bool submit_cancel(Connection *conn, enum iox_kind kind)
{
	struct io_uring_sqe *sqe = iox_driver_sqe(conn->driver);

	if (!sqe)
		return false;
	io_uring_prep_cancel64(sqe, iox_user_data(kind, conn->generation, conn->slot), 0);
	sqe->user_data = iox_user_data(IOX_KIND_CANCEL, 0, 0);
	return true;
}

static bool submit_recv(Connection *conn)
{
	struct io_uring_sqe *sqe = iox_driver_sqe(conn->driver);

	if (!sqe)
		return false;
	io_uring_prep_recv(sqe, conn->fd, NULL, 0, 0);
	sqe->ioprio |= IOX_RECV_MULTISHOT;
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = IOX_SHARED_GROUP;
	sqe->user_data = iox_user_data(IOX_KIND_RECV, conn->generation, conn->slot);
	conn->recv_armed = true;
	conn->kernel_refs++;
	return true;
}

static bool submit_send(Connection *conn)
{
	Driver *driver = conn->driver;
	struct io_uring_sqe *sqe = iox_driver_sqe(driver);

	if (!sqe)
		return false;
	if (!conn->sending.used) {
		conn->sending = conn->staging;
		conn->staging = (struct iox_slab){ 0 };
		conn->sent = 0;
	}
	/*
	 * MSG_WAITALL (io_uring, 5.19) lets the kernel itself continue a send that a full socket buffer
	 * cut short; lengths are 32 bits in an SQE, which write_limit's bound of 1 GiB respects.
	 */
	io_uring_prep_send(sqe, conn->fd, conn->sending.mem + conn->sent,
			   conn->sending.used - conn->sent, MSG_WAITALL | MSG_NOSIGNAL);
	sqe->user_data = iox_user_data(IOX_KIND_SEND, conn->generation, conn->slot);
	conn->send_armed = true;
	conn->kernel_refs++;
	driver->counters.sends++;
	if (driver->send_timeout) {
		conn->send_deadline = driver->now + driver->send_timeout;
		iox_list_append(&driver->send_clocks, &conn->send_clock);
	}
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
		if (!conn->recv_armed && !conn->aborted && conn->fd >= 0 && !submit_recv(conn))
			return false;
		conn->want &= ~IOX_WANT_RECV;
	}
	if (conn->want & IOX_WANT_SEND) {
		if (!conn->send_armed && unsent(conn) && !conn->aborted && !submit_send(conn))
			return false;
		conn->want &= ~IOX_WANT_SEND;
	}
	return true;
}

/* ---- Life --------------------------------------------------------------------------------- */

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
	close(conn->fd);
	conn->fd = -1;
	driver->counters.closes++;
	chunks_discard(conn);
	iox_list_remove(&conn->staged);
	iox_list_remove(&conn->starved);
	iox_list_remove(&conn->read_clock);
	iox_list_remove(&conn->send_clock);
	conn->want = 0;
	iox_slab_release(&driver->slabs, &conn->staging);
	iox_slab_release(&driver->slabs, &conn->sending);
	wake_reader(conn);
	wake_flushers(conn, true);
	iox_driver_forget(driver, conn);
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
	if (!conn->closing)
		return;
	if (conn->send_armed || (unsent(conn) && !conn->send_errno))
		return;
	if (!conn->fin_sent) {
		conn->fin_sent = true;
		if (!conn->recv_errno && !conn->send_errno)
			shutdown(conn->fd, SHUT_WR);
		start_read_clock(conn);
	}
	if (!conn->recv_armed && (conn->at_eof || conn->recv_errno))
		finalize(conn);
}

static void end_reads(Connection *conn)
{
	chunks_discard(conn);
	wake_reader(conn);
	if (conn->fd >= 0 && !conn->recv_armed && !conn->at_eof && !conn->recv_errno && !conn->aborted &&
	    !iox_list_linked(&conn->starved)) {
		/* Paused: the peer's end is seen only by an armed receive. */
		conn->recv_paused = false;
		iox_want(conn, IOX_WANT_RECV);
	}
}

/* Reading ends now, as if the peer had sent FIN; what is queued is still delivered. */
void iox_conn_end_reads(Connection *conn)
{
	if (conn->reads_ended || conn->fd < 0)
		return;
	conn->reads_ended = true;
	wake_reader(conn);
}

void iox_conn_close(Connection *conn)
{
	if (conn->closing || conn->fd < 0)
		return;
	conn->closing = true;
	end_reads(conn);
	iox_conn_progress(conn);
}

void iox_conn_abort(Connection *conn, const char *reason)
{
	if (conn->aborted || conn->fd < 0)
		return;
	conn->aborted = true;
	conn->driver->counters.aborts++;
	conn->abort_reason = reason;
	if (!conn->recv_errno)
		conn->recv_errno = ECONNABORTED;
	if (!conn->send_errno)
		conn->send_errno = ECONNABORTED;
	drop_staging(conn);
	wake_reader(conn);
	wake_flushers(conn, true);
	iox_list_remove(&conn->starved);
	iox_list_remove(&conn->read_clock);
	iox_list_remove(&conn->send_clock);
	/*
	 * The ring holds the file, so close() alone would end nothing; shutdown() would, but its FIN
	 * would reach the peer before the RST.  So both operations are cancelled, and the descriptor
	 * goes with their last completion.
	 */
	conn->want &= ~(IOX_WANT_RECV | IOX_WANT_SEND);
	if (conn->recv_armed)
		iox_want(conn, IOX_WANT_CANCEL);
	if (conn->send_armed)
		iox_want(conn, IOX_WANT_CANCEL_SEND);
	iox_conn_progress(conn);
}

/* ---- The type ----------------------------------------------------------------------------- */

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

#define CONN_ACTION(name, call)                                                     \
	static PyObject *name(Connection *conn, PyObject *Py_UNUSED(ignored))       \
	{                                                                           \
		if (iox_conn_check_thread(conn) < 0)                                \
			return NULL;                                                \
		call;                                                               \
		Py_RETURN_NONE;                                                     \
	}

CONN_ACTION(conn_close_method, iox_conn_close(conn))
CONN_ACTION(conn_abort_method, iox_conn_abort(conn, "connection aborted by abort()"))
CONN_ACTION(conn_end_reads_method, iox_conn_end_reads(conn))

static PyObject *conn_fileno(Connection *conn, PyObject *Py_UNUSED(ignored))
{
	return PyLong_FromLong(conn->fd);
}

static PyObject *conn_get_closed(Connection *conn, void *Py_UNUSED(closure))
{
	return PyBool_FromLong(conn->closing || conn->aborted || conn->fd < 0);
}

static PyObject *conn_get_broken(Connection *conn, void *Py_UNUSED(closure))
{
	return PyBool_FromLong(conn->recv_errno || conn->send_errno || conn->aborted);
}

static PyObject *conn_get_unsent(Connection *conn, void *Py_UNUSED(closure))
{
	return PyLong_FromSize_t(unsent(conn));
}

static PyObject *conn_get_queued(Connection *conn, void *Py_UNUSED(closure))
{
	return PyLong_FromUnsignedLong(conn->chunk_count);
}

static int conn_traverse(Connection *conn, visitproc visit, void *arg)
{
	Py_VISIT(conn->driver);
	Py_VISIT(conn->reader);
	return 0;
}

static int conn_clear(Connection *conn)
{
	Py_CLEAR(conn->reader);
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
	{ "write", (PyCFunction)conn_write, METH_O, NULL },
	{ "flush", (PyCFunction)conn_flush, METH_NOARGS, NULL },
	{ "close", (PyCFunction)conn_close_method, METH_NOARGS, NULL },
	{ "abort", (PyCFunction)conn_abort_method, METH_NOARGS, NULL },
	{ "_end_reads", (PyCFunction)conn_end_reads_method, METH_NOARGS, NULL },
	{ "fileno", (PyCFunction)conn_fileno, METH_NOARGS, NULL },
	{ NULL },
};

static PyGetSetDef conn_getset[] = {
	{ "closed", (getter)conn_get_closed, NULL, NULL, NULL },
	{ "_broken", (getter)conn_get_broken, NULL, NULL, NULL },
	{ "unsent", (getter)conn_get_unsent, NULL, NULL, NULL },
	{ "_queued", (getter)conn_get_queued, NULL, NULL, NULL },
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

/* ---- Slice -------------------------------------------------------------------------------- */

static void slice_give_back(Slice *slice)
{
	Driver *driver = slice->driver;

	if (!driver || slice->exports)
		return;
	slice->driver = NULL;
	driver->slices_out--;
	iox_driver_recycle(driver, slice->chunk.bid); /* any thread: under the GIL, see there */
	Py_DECREF(driver);
}

static int slice_getbuffer(Slice *slice, Py_buffer *view, int flags)
{
	if (slice->ended || !slice->driver) {
		PyErr_SetString(PyExc_ValueError, "this slice was given back when its read() block ended");
		return -1;
	}
	if (PyBuffer_FillInfo(view, (PyObject *)slice,
			      iox_ring_buffer(slice->driver->ring, slice->chunk.bid) + slice->chunk.offset,
			      (Py_ssize_t)slice->chunk.length, 1, flags) < 0)
		return -1;
	slice->exports++;
	return 0;
}

static void slice_releasebuffer(Slice *slice, Py_buffer *Py_UNUSED(view))
{
	slice->exports--;
	if (slice->ended)
		slice_give_back(slice);
}

static PyObject *slice_end(Slice *slice, PyObject *Py_UNUSED(ignored))
{
	slice->ended = true;
	slice_give_back(slice);
	Py_RETURN_NONE;
}

static void slice_dealloc(Slice *slice)
{
	slice_give_back(slice);
	PyObject_Free(slice);
}

static PyBufferProcs slice_buffer = {
	.bf_getbuffer = (getbufferproc)slice_getbuffer,
	.bf_releasebuffer = (releasebufferproc)slice_releasebuffer,
};

static PyMethodDef slice_methods[] = {
	{ "end", (PyCFunction)slice_end, METH_NOARGS, NULL },
	{ NULL },
};

PyTypeObject iox_SliceType = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "ioxide._ring._core.Slice",
	.tp_basicsize = sizeof(Slice),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.tp_doc = "One received buffer, lent out; goes back to the kernel with its last view.",
	.tp_dealloc = (destructor)slice_dealloc,
	.tp_as_buffer = &slice_buffer,
	.tp_methods = slice_methods,
};

int iox_connection_init(PyObject *module)
{
	if (PyModule_AddType(module, &iox_ConnectionType) < 0)
		return -1;
	return PyModule_AddType(module, &iox_SliceType);
}
