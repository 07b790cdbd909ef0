/* SPDX-License-Identifier: MIT */
/*
 * The sending half of a connection: two batches, of which one takes writes while the other belongs to
 * the kernel, and the tasks that wait for what they wrote to be taken.
 *
 * One SEND is in flight at a time: that keeps the order.
 */
#include "send.h"

#include "clocks.h"
#include "driver_state.h"
#include "errors.h"
#include "mailbox.h"
#include "notify.h"
#include "owner.h"
#include "retry.h"
#include "sockets.h"
#include "submit.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* Bytes of the batch in flight that no completion has acknowledged. */
static size_t in_flight(const Connection *conn)
{
	return conn->send.sending.used - conn->send.sent;
}

size_t iox_send_taken(const Connection *conn)
{
	const iox_ring *ring = conn->driver->ring;
	uint64_t whose = iox_user_data(IOX_KIND_SEND, conn->generation, conn->slot);
	unsigned ready;

	/* In a forked child the queues are the parent's. */
	if (!iox_list_linked(&conn->send.silent) || !ring || conn->driver->forks != iox_forks ||
	    (int)(__atomic_load_n(ring->uring.sq.khead, __ATOMIC_ACQUIRE) - conn->send.silent_end) < 0 ||
	    iox_ring_overflowed(ring))
		return 0;
	/* Its failure may be among the completions that were not taken in yet. */
	ready = iox_ring_ready(ring);
	for (unsigned i = 0; i < ready; i++)
		if (ring->uring.cq.cqes[(ring->cq_head + i) & ring->uring.cq.ring_mask].user_data == whose)
			return 0;
	return in_flight(conn);
}

size_t iox_send_unsent(const Connection *conn)
{
	return conn->send.staging.used + in_flight(conn) - iox_send_taken(conn);
}

uint64_t iox_send_target(const Connection *conn)
{
	return conn->send.bytes_written + conn->send.foreign_bytes + conn->send.bytes_dropped;
}

bool iox_send_pending(const Connection *conn, uint64_t target)
{
	return conn->send.bytes_acked < target && !conn->send.error && !iox_conn_over(conn) &&
	       !(conn->life.state == IOX_LIFE_CLOSING && target > conn->send.bytes_written);
}

bool iox_send_zero_copy_pending(const Connection *conn)
{
	return conn->send.notification_due || conn->send.notified.used || (conn->send.armed && conn->send.zero_copy);
}

int iox_send_flush_state(Connection *conn, uint64_t target)
{
	if (conn->send.bytes_acked >= target)
		return 1;
	if (iox_send_pending(conn, target))
		return 0;
	if (conn->send.error) {
		iox_raise_os_error(conn->send.error, conn->life.abort_reason);
		return -1;
	}
	if (conn->life.abort_reason)
		iox_raise_os_error(ECONNABORTED, conn->life.abort_reason);
	else
		iox_raise_os_error(EPIPE, "the connection was closed before the write was taken");
	return -1;
}

void iox_send_wake(Connection *conn, bool all)
{
	struct iox_node *node = conn->send.flushes.next;

	while (node != &conn->send.flushes) {
		Waiter *waiter = IOX_ENTRY(node, Waiter, flushes);

		node = node->next;
		if (all || !iox_send_pending(conn, waiter->target)) {
			iox_list_remove(&waiter->flushes);
			iox_waiter_wake(waiter);
			Py_DECREF(waiter); /* not the last one: its Await, or the ready queue, has another */
		}
	}
}

void iox_send_drop(Connection *conn)
{
	iox_batch_release(&conn->driver->slabs, &conn->send.staging);
	conn->life.want &= ~IOX_WANT_SEND;
}

/*
 * How much one SEND carries: its length is 32 bits wide, and the kernel moves less than 2 GiB at a
 * time.  write_limit is not above it; what asyncio's transports take has no limit.
 */
#define SEND_MAX ((size_t)1 << 30)

/* Bytes of a SEND without a completion, at most. */
#define SILENT_MAX ((size_t)32 * 1024)

static void send_failed(Connection *conn, int error)
{
	conn->send.error = error;
	iox_send_drop(conn);
	iox_send_wake(conn, true);
	iox_face_wake(conn);
}

static bool timed_out(int fd)
{
	int error = 0;
	socklen_t size = sizeof(error);

	return !getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) && error == ETIMEDOUT;
}

/* SEND_ZC: the kernel does not read the memory any more. */
static enum iox_send_report notified(Connection *conn, int res)
{
	Driver *driver = conn->driver;

	conn->life.kernel_refs--;
	driver->counters.zc_notifs++;
	if ((unsigned)res & IOX_NOTIF_USAGE_ZC_COPIED)
		driver->counters.zc_copied++;
	if (conn->send.notified.used)
		iox_batch_release(&driver->slabs, &conn->send.notified);
	else
		conn->send.notification_due = false;
	if (conn->life.user_timeout_set && !iox_recv_in_kernel(conn) && timed_out(conn->fd))
		return IOX_SEND_PEER_TIMED_OUT; /* the receive, which had ended before, cannot tell */
	return IOX_SEND_GOES_ON;
}

/*
 * Whether a SEND can do what this SEND_ZC could not: the kernel or the socket does not know it or its flag, or
 * there was no memory to pin, which is charged to RLIMIT_MEMLOCK for an ordinary user (seen on 6.18).
 */
static bool fall_back(Connection *conn, int res)
{
	Driver *driver = conn->driver;

	if (!conn->send.zero_copy || (res != -EINVAL && res != -EOPNOTSUPP && res != -ENOMEM && res != -ENOBUFS))
		return false;
	if (res == -EINVAL && driver->zero_copy_report)
		driver->zero_copy_report = false; /* IORING_SEND_ZC_REPORT_USAGE is of 6.2 */
	else
		iox_want(conn, IOX_WANT_PLAIN_SEND);
	driver->counters.zc_fallbacks++;
	return true;
}

static void slab_sent(Connection *conn)
{
	if (conn->send.notification_due) {
		conn->send.notified = conn->send.sending;
		conn->send.sending = (struct iox_batch){ 0 };
		conn->send.notification_due = false;
	} else {
		iox_batch_release(&conn->driver->slabs, &conn->send.sending);
	}
	conn->send.sent = 0;
}

enum iox_send_report iox_send_complete(Connection *conn, int res, unsigned flags)
{
	Driver *driver = conn->driver;
	bool silent;

	if (flags & IOX_CQE_F_NOTIF)
		return notified(conn, res);
	if (flags & IOX_CQE_F_MORE) {
		conn->send.notification_due = true; /* kernel_refs stays until it comes */
		driver->counters.sends_zc++;
	} else {
		conn->life.kernel_refs--;
	}
	conn->send.armed = false;
	silent = iox_list_linked(&conn->send.silent);
	iox_list_remove(&conn->send.silent);

	if (res > 0) {
		if ((size_t)res > conn->send.sending.used - conn->send.sent)
			res = (int)(conn->send.sending.used - conn->send.sent); /* a forged completion */
		conn->send.sent += (size_t)res;
		conn->send.bytes_acked += (uint64_t)res;
		driver->counters.bytes_sent += (uint64_t)res;
		/* The peer has taken bytes: its read clock begins again, but not the clock of its FIN. */
		if (iox_list_linked(&conn->receive.clock) && !conn->life.fin_sent && !silent)
			iox_recv_start_clock(conn);
	}
	if (res == -EAGAIN && silent)
		iox_want(conn, IOX_WANT_WAITING_SEND); /* nothing was taken: the socket's buffer is full */
	else if (res == -EAGAIN)
		iox_conn_block(conn); /* another holder of the file has set O_NONBLOCK (6.18 reads it in accepts alone) */
	else if (res <= 0 && res != -EINTR && !iox_conn_over(conn) && !fall_back(conn, res)) {
		if (res == -ENOMEM || res == -ENOBUFS) {
			/* The next one has a completion, and so a clock. */
			iox_retry_later(conn, IOX_WANT_SEND | (silent ? IOX_WANT_WAITING_SEND : 0));
			return IOX_SEND_GOES_ON; /* the send clock runs on */
		}
		send_failed(conn, res ? -res : EPIPE);
	}

	if (!conn->send.error && !iox_conn_over(conn) && conn->send.sent < conn->send.sending.used) {
		/* Not where the connection is over: a cancelled SEND has a short result, too. */
		if (res > 0)
			driver->counters.partial_sends++;
		iox_want(conn, IOX_WANT_SEND);
	} else {
		iox_list_remove(&conn->send.clock);
		slab_sent(conn);
		if (conn->send.staging.used)
			iox_want(conn, IOX_WANT_SEND);
		iox_send_wake(conn, iox_conn_over(conn));
	}
	if (conn->face.waiter)
		iox_face_sent(conn);
	return IOX_SEND_GOES_ON;
}

int iox_send_check(Connection *conn, size_t length)
{
	size_t limit = conn->driver->settings.write_limit, waiting = iox_send_unsent(conn) + conn->send.foreign_bytes;

	if (conn->send.error) {
		iox_raise_os_error(conn->send.error, conn->life.abort_reason);
		return -1;
	}
	if (conn->life.state != IOX_LIFE_OPEN) {
		iox_raise_os_error(EPIPE, "write() on a connection that was closed");
		return -1;
	}
	/* A transport's write() takes everything, as asyncio's: its protocol is paused instead. */
	if (conn->for_handler && (length > limit || waiting + length > limit)) {
		PyErr_Format(PyExc_BufferError,
			     "%zu bytes do not fit: %zu wait to be sent and write_limit is %zu bytes; "
			     "await flush() between writes, or raise write_limit",
			     length, waiting, limit);
		return -1;
	}
	return 0;
}

static void staged(Connection *conn, size_t length)
{
	conn->send.bytes_written += length;
	if (!conn->send.armed)
		iox_want(conn, IOX_WANT_SEND);
}

bool iox_send_stage(Connection *conn, const void *data, size_t length)
{
	if (!iox_batch_write(&conn->driver->slabs, &conn->send.staging, data, length))
		return false;
	staged(conn, length);
	return true;
}

bool iox_send_hold(Connection *conn, const void *data, size_t length, PyObject *bytes)
{
	/* The reference is dropped where no Python code may run; the end of an exact bytes object runs none. */
	if (!iox_batch_hold(&conn->driver->slabs, &conn->send.staging, data, length, bytes))
		return false;
	Py_INCREF(bytes);
	conn->driver->counters.writes_held++;
	staged(conn, length);
	return true;
}

void iox_send_leak(Connection *conn)
{
	uint64_t *leaked = &conn->driver->counters.writes_leaked;

	if (conn->send.armed || conn->send.notification_due)
		*leaked += iox_batch_leak(&conn->send.sending);
	*leaked += iox_batch_leak(&conn->send.notified);
}

/*
 * The exact bytes object that `view` of `data` points into; nobody can change it while there is a reference to
 * it.  NULL: it points into something else.
 */
static PyObject *immutable(PyObject *data, const Py_buffer *view)
{
	PyObject *bytes = PyMemoryView_Check(data) ? PyMemoryView_GET_BUFFER(data)->obj : data;

	return bytes && PyBytes_CheckExact(bytes) && view->readonly ? bytes : NULL;
}

void iox_send_now(Connection *conn)
{
	const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
	struct msghdr *message;
	ssize_t sent;
	char *from;

	/* These bytes would overtake a SEND in flight, or the rest of one. */
	if (conn->send.armed || conn->send.sending.used || !conn->send.staging.used ||
	    conn->life.state == IOX_LIFE_GONE)
		return;
	conn->life.want &= ~IOX_WANT_SEND;
	conn->send.sending = conn->send.staging;
	conn->send.staging = (struct iox_batch){ 0 };
	conn->send.sent = 0;
	while (conn->send.sent < conn->send.sending.used) {
		message = iox_batch_gather(&conn->send.sending, conn->send.sent, &from);
		sent = message ? sendmsg(conn->fd, message, flags) :
				 send(conn->fd, from, conn->send.sending.used - conn->send.sent, flags);
		if (sent < 0 && errno != EAGAIN && errno != EINTR)
			conn->send.error = errno;
		if (sent <= 0)
			return;
		conn->send.sent += (size_t)sent;
		conn->send.bytes_acked += (uint64_t)sent;
		conn->driver->counters.bytes_sent += (uint64_t)sent;
	}
	slab_sent(conn);
}

PyObject *iox_send_write(Connection *conn, PyObject *data)
{
	PyObject *bytes;
	Py_buffer view;
	int ret;

	/* First of all: from 3.12 on it may run Python code (PEP 688), which may end this connection. */
	if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
		return NULL;
	iox_mailbox_first(&conn->driver->foreign);
	ret = iox_send_check(conn, (size_t)view.len);
	if (ret == 0 && view.len) {
		bool done;

		if ((size_t)view.len >= IOX_HOLD_FROM && (bytes = immutable(data, &view)))
			done = iox_send_hold(conn, view.buf, (size_t)view.len, bytes);
		else
			done = iox_send_stage(conn, view.buf, (size_t)view.len);
		if (!done) {
			PyErr_NoMemory();
			ret = -1;
		}
	}
	PyBuffer_Release(&view);
	if (ret < 0)
		return NULL;
	Py_RETURN_NONE;
}

/*
 * Whether a SEND may be silent: it completes only on failure (IOSQE_CQE_SKIP_SUCCESS, 5.17), so that the
 * enter that submits it already waits for the next request.  Not where somebody waits for its result: a
 * flush(), the end of writing, a transport that asked.  Not for held bytes, which would be kept alive until
 * the end of that wait; not for SEND_ZC, which has two completions; and not above SILENT_MAX, because such a
 * send seldom fits into the socket's buffer at once, and would be submitted twice.
 */
static bool may_be_silent(const Connection *conn, const struct msghdr *message, size_t length)
{
	return !message && length <= SILENT_MAX && !conn->send.zero_copy && !conn->send.sent && !conn->driver->no_silent &&
	       !(conn->life.want & IOX_WANT_WAITING_SEND) && conn->life.state == IOX_LIFE_OPEN &&
	       !conn->send.eof_wanted && !iox_list_linked(&conn->send.flushes) &&
	       (!conn->face.waiter || conn->face.acked == UINT64_MAX);
}

bool iox_send_submit(Connection *conn)
{
	Driver *driver = conn->driver;
	struct io_uring_sqe *sqe = iox_driver_sqe(driver);
	/*
	 * MSG_WAITALL (io_uring, 5.19) lets the kernel itself continue a send that a full socket buffer
	 * cut short.
	 */
	const unsigned flags = MSG_WAITALL | MSG_NOSIGNAL;
	struct msghdr *message;
	size_t left;
	bool silent;
	char *from;

	if (!sqe)
		return false;
	if (!conn->send.sending.used) {
		conn->send.sending = conn->send.staging;
		conn->send.staging = (struct iox_batch){ 0 };
		conn->send.sent = 0;
	}
	message = iox_batch_gather(&conn->send.sending, conn->send.sent, &from);
	left = conn->send.sending.used - conn->send.sent;
	if (left > SEND_MAX)
		left = SEND_MAX;
	/*
	 * One notification is waited for at a time.  While it is due, later batches are copied: to wait for the
	 * peer's acknowledgement of each batch would cost more than the copies.
	 */
	conn->send.zero_copy = driver->settings.zero_copy_send && !conn->send.notification_due && !conn->send.notified.used &&
			!(conn->life.want & IOX_WANT_PLAIN_SEND);
	if (message && conn->send.zero_copy)
		io_uring_prep_sendmsg_zc(sqe, conn->fd, message, flags);
	else if (message)
		io_uring_prep_sendmsg(sqe, conn->fd, message, flags);
	else if (conn->send.zero_copy)
		io_uring_prep_send_zc(sqe, conn->fd, from, left, (int)flags, 0);
	else
		io_uring_prep_send(sqe, conn->fd, from, left, (int)flags);
	if (conn->send.zero_copy && driver->zero_copy_report)
		sqe->ioprio |= IOX_SEND_ZC_REPORT_USAGE;
	silent = may_be_silent(conn, message, left);
	if (silent) {
		/*
		 * With MSG_DONTWAIT a SEND that does not fit into the socket's buffer fails at once; its result
		 * is what was taken (io_req_defer_failed(), io_sendrecv_fail(); 6.1).  So when the kernel has
		 * consumed the entry and there is no completion, the SEND was taken whole.
		 */
		sqe->msg_flags |= MSG_DONTWAIT;
		sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
		conn->send.silent_end = driver->ring->uring.sq.sqe_tail;
		iox_list_append(&driver->silent, &conn->send.silent);
		driver->counters.sends_silent++;
		/* It is taken now, but accounted for when the wait ends, perhaps by this very clock. */
		if (iox_list_linked(&conn->receive.clock))
			iox_recv_start_clock(conn);
	}
	conn->life.want &= ~(IOX_WANT_PLAIN_SEND | IOX_WANT_WAITING_SEND);
	sqe->user_data = iox_user_data(IOX_KIND_SEND, conn->generation, conn->slot);
	conn->send.armed = true;
	conn->life.kernel_refs++;
	driver->counters.sends++;
	if (message)
		driver->counters.sends_vectored++;
	/*
	 * One clock for a batch, however many sends it takes.  A silent send has none: it has ended when the
	 * enter returns.
	 */
	if (driver->settings.send_timeout_ms && conn->for_handler && !silent && !iox_list_linked(&conn->send.clock)) {
		conn->send.deadline = driver->now + driver->settings.send_timeout_ms;
		iox_list_append(&driver->send_clocks, &conn->send.clock);
	}
	return true;
}
