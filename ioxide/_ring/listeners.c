/* SPDX-License-Identifier: MIT */
/*
 * Listening sockets: they are added, armed as multishot accepts, and removed.  Each listener says whether its
 * connections go to handlers or to asyncio's create_server().
 *
 * A multishot accept is for a listener that is the driver's alone.  Its waiter is an exclusive one, and
 * one wake empties the whole backlog, so of several processes one would take every connection, busy or
 * not.  Listeners that others may hold are watched by the loop's epoll instance, and accept() takes one
 * connection for each wake.
 */
#include "listeners.h"

#include "adopt.h"
#include "faults.h"
#include "owner.h"
#include "submit.h"
#include "table.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* How long a listener is not armed after EMFILE, ENFILE, ENOBUFS or ENOMEM, in ms. */
#define ACCEPT_PAUSE 100

/* The least time between two calls of on_error, in ms; asyncio's ACCEPT_RETRY_DELAY. */
#define ERROR_INTERVAL 1000

static PyObject *given(PyObject *const *args, Py_ssize_t nargs, Py_ssize_t index)
{
	return nargs > index && args[index] != Py_None ? Py_NewRef(args[index]) : NULL;
}

PyObject *iox_driver_listen(Driver *self, PyObject *const *args, Py_ssize_t nargs)
{
	int fd;

	if (nargs < 1 || nargs > 3) {
		PyErr_SetString(PyExc_TypeError, "listen(fd, on_connection=None, on_error=None)");
		return NULL;
	}
	fd = PyObject_AsFileDescriptor(args[0]);
	if (fd < 0 || iox_driver_check_owner(self) < 0)
		return NULL;
	for (unsigned i = 0; i < IOX_MAX_LISTENERS; i++) {
		struct iox_listener *listener = &self->listeners[i];

		if (listener->used)
			continue;
		*listener = (struct iox_listener){
			.fd = fd,
			.used = true,
			.generation = iox_driver_generation(self),
			.on_connection = given(args, nargs, 1),
			.on_error = given(args, nargs, 2),
		};
		if (i >= self->listener_slots)
			self->listener_slots = i + 1;
		self->accepting = true;
		Py_RETURN_NONE;
	}
	PyErr_Format(PyExc_RuntimeError, "a driver has at most %d listeners", IOX_MAX_LISTENERS);
	return NULL;
}

static bool arm_listener(Driver *self, unsigned index)
{
	struct iox_listener *listener = &self->listeners[index];
	struct io_uring_sqe *sqe = iox_driver_sqe(self);
	int flags;

	if (!sqe)
		return false;
	/*
	 * asyncio's listeners are O_NONBLOCK.  io_uring makes REQ_F_NOWAIT of that, and answers -EAGAIN
	 * instead of waiting.  It reads the flag once, when it takes the submission (io_file_get_flags(), 6.1
	 * to 6.18).  The flag belongs to the open file, which another process may have inherited and might
	 * then block on in accept(2); so it is set again at once.
	 */
	flags = listener->on_connection ? fcntl(listener->fd, F_GETFL) : 0;
	if (flags > 0 && flags & O_NONBLOCK)
		fcntl(listener->fd, F_SETFL, flags & ~O_NONBLOCK);
	else
		flags = 0;
	/* Accepted sockets are blocking (io_uring would return -EAGAIN) and close-on-exec. */
	io_uring_prep_multishot_accept(sqe, listener->fd, NULL, NULL, SOCK_CLOEXEC);
	/*
	 * A multishot accept that finds the completion queue full while it is being submitted has taken one
	 * connection too many: 6.10 to 6.13 answer -ECANCELED, and nobody ever learns its descriptor
	 * (IOX-ERR-014; IOU_STOP_MULTISHOT out of io_accept(), io_uring/net.c).  Run from its poll it keeps
	 * the descriptor, so it is to poll first.  6.9 and older do not know the flag, and do not need it.
	 */
	if (!listener->polls_late)
		sqe->ioprio |= IOX_ACCEPT_POLL_FIRST;
	sqe->user_data = iox_user_data(IOX_KIND_ACCEPT, listener->generation, index);
	listener->armed = true;
	self->listeners_armed++;
	if (flags) {
		/* Refused for now (EBUSY, EAGAIN): it completes with -EAGAIN, and is armed once more. */
		self->counters.enters++;
		iox_ring_enter(self->ring, 0, 0, -1, 0);
		fcntl(listener->fd, F_SETFL, flags);
	}
	return true;
}

bool iox_listeners_arm(Driver *self)
{
	for (unsigned i = 0; i < self->listener_slots && self->accepting; i++) {
		struct iox_listener *listener = &self->listeners[i];

		if (listener->used && !listener->armed && !listener->stopping && !listener->retry_at &&
		    !arm_listener(self, i))
			return false;
	}
	return true;
}

/* The connection of an accepted descriptor; NULL when there is no room, and it was closed. */
static Connection *accept_or_shed(Driver *self, int fd, bool for_handler, bool wanted)
{
	Connection *conn = NULL;

	if (wanted &&
	    (!for_handler || self->handler_connections < self->settings.max_connections))
		conn = iox_conn_new(self, fd, for_handler);
	if (!conn) {
		PyErr_Clear();
		close(fd);
		self->counters.accepts_shed++;
		return NULL;
	}
	self->counters.accepts++;
	return conn;
}

static void accept_connection(Driver *self, struct iox_listener *listener, int fd)
{
	Connection *conn = accept_or_shed(self, fd, !listener->on_connection,
					self->accepting && !listener->stopping);

	if (!conn)
		return;
	conn->on_start = Py_XNewRef(listener->on_connection);
	iox_list_append(&self->starting, &conn->starting);
}

/* Errors that end when a descriptor or memory becomes free. */
static bool lacks_resources(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

/* One connection ended in the backlog (accept(2)), or another process took it: no reason to wait. */
static bool is_transient(int error)
{
	return error == EAGAIN || error == EINTR || error == ECONNABORTED || error == EPROTO;
}

/*
 * The kernel allocates a descriptor before it looks at the backlog.  So at the limit an accept fails also when
 * no client waits; such a failure is not reported.
 */
static bool backlog_waits(const struct iox_listener *listener)
{
	struct pollfd ask = { .fd = listener->fd, .events = POLLIN };

	return poll(&ask, 1, 0) != 0;
}

static void note_failure(Driver *self, struct iox_listener *listener, int error)
{
	if (!listener->on_error || (listener->told_at && self->now < listener->told_at + ERROR_INTERVAL) ||
	    (lacks_resources(error) && !backlog_waits(listener)))
		return;
	listener->error = error;
	listener->told_at = self->now;
	self->accepts_failed = true;
}

int iox_listeners_report(Driver *self)
{
	self->accepts_failed = false;
	for (unsigned i = 0; i < self->listener_slots; i++) {
		struct iox_listener *listener = &self->listeners[i];
		PyObject *on_error, *error, *result;
		int ret = 0;

		if (!listener->error)
			continue;
		on_error = Py_XNewRef(listener->on_error); /* the call may remove the listener */
		error = PyObject_CallFunction(PyExc_OSError, "is", listener->error,
					      strerror(listener->error));
		listener->error = 0;
		result = error && on_error ? PyObject_CallOneArg(on_error, error) : NULL;
		if (PyErr_Occurred())
			ret = iox_driver_report(self, "on_error of a listener raised");
		Py_XDECREF(result);
		Py_XDECREF(error);
		Py_XDECREF(on_error);
		if (ret < 0) {
			self->accepts_failed = true; /* the next tick reports the other listeners */
			return -1;
		}
	}
	return 0;
}

void iox_listeners_complete(Driver *self, uint32_t generation, uint32_t index, int res, unsigned flags)
{
	struct iox_listener *listener;
	bool refused;

	if (index >= self->listener_slots || !self->listeners[index].armed ||
	    self->listeners[index].generation != generation) {
		self->counters.stale_cqes++;
		return;
	}
	listener = &self->listeners[index];
	/* The kernel does not know the flag, or this is no listening socket: it is armed once without the flag. */
	refused = res == -EINVAL && !listener->polls_late;
	listener->polls_late |= refused;
	if (!(flags & IOX_CQE_F_MORE)) {
		listener->armed = false;
		self->listeners_armed--;
		if (listener->stopping)
			listener->used = false;
		else
			self->counters.accept_rearms += !refused;
	}
	if (refused)
		return;
	if (res >= 0) {
		accept_connection(self, listener, res);
	} else if (!listener->stopping && !is_transient(-res)) {
		/*
		 * No descriptors, no memory, or no listening socket any more (EINVAL, EBADF).  Armed again at once
		 * the accept would fail at once, and the reactor would spin.
		 */
		self->counters.accept_pauses++;
		listener->retry_at = self->now + ACCEPT_PAUSE;
		note_failure(self, listener, -res);
	}
}

PyObject *iox_driver_accept(Driver *self, PyObject *arg)
{
	int listener = PyObject_AsFileDescriptor(arg), fd, one = 1;
	Connection *conn;

	if (listener < 0 || iox_driver_check_owner(self) < 0)
		return NULL;
	self->counters.accept_wakes++;
	/* Not SOCK_NONBLOCK: io_uring would answer -EAGAIN instead of waiting. */
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0 && is_transient(errno)) {
		self->counters.accept_misses++;
		Py_RETURN_NONE;
	}
	if (fd < 0) {
		self->counters.accept_pauses += lacks_resources(errno);
		return PyErr_SetFromErrno(PyExc_OSError);
	}
	conn = accept_or_shed(self, fd, false, true);
	if (!conn)
		Py_RETURN_NONE;
	/* Not set on the listener, from which it would be inherited: other processes use it, too. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return Py_NewRef(conn);
}

uint64_t iox_listeners_soonest(const Driver *self)
{
	uint64_t soonest = UINT64_MAX;

	for (unsigned i = 0; i < self->listener_slots; i++)
		if (self->listeners[i].retry_at && self->listeners[i].retry_at < soonest)
			soonest = self->listeners[i].retry_at;
	return soonest;
}

void iox_listeners_expire(Driver *self)
{
	for (unsigned i = 0; i < self->listener_slots; i++)
		if (self->listeners[i].retry_at && self->listeners[i].retry_at <= self->now)
			self->listeners[i].retry_at = 0;
}

static bool stop_listener(Driver *self, unsigned index, bool elsewhere)
{
	struct iox_listener *listener = &self->listeners[index];
	PyObject *on_connection, *on_error;
	struct io_uring_sqe *sqe;

	if (listener->armed && !elsewhere) {
		sqe = iox_driver_sqe(self);
		if (!sqe) {
			PyErr_SetString(PyExc_BlockingIOError, "the submission queue stays full: try again");
			return false;
		}
		io_uring_prep_cancel64(sqe, iox_user_data(IOX_KIND_ACCEPT, listener->generation, index), 0);
		sqe->user_data = iox_user_data(IOX_KIND_CANCEL, 0, 0);
	}
	listener->stopping = true;
	listener->retry_at = 0;
	listener->used = listener->armed;
	listener->error = 0;
	on_connection = listener->on_connection;
	on_error = listener->on_error;
	listener->on_connection = listener->on_error = NULL;
	Py_XDECREF(on_connection); /* not where the last completion is taken in: it may run Python code */
	Py_XDECREF(on_error);
	return true;
}

PyObject *iox_driver_unlisten(Driver *self, PyObject *const *args, Py_ssize_t nargs)
{
	bool all = !nargs || args[0] == Py_None;
	int fd = all ? -1 : PyObject_AsFileDescriptor(args[0]);
	/* Another thread, while no loop runs: the ring cannot be entered here, so the accept ends with the ring. */
	bool elsewhere = !self->closed && !iox_driver_is_here(self) &&
			 (self->forks != iox_forks || !(self->running || self->inside));

	if ((!all && fd < 0) || (!elsewhere && iox_driver_check_owner(self) < 0))
		return NULL;
	if (all)
		self->accepting = false;
	for (unsigned i = 0; i < self->listener_slots; i++) {
		struct iox_listener *listener = &self->listeners[i];

		if (listener->used && !listener->stopping && (all || listener->fd == fd) &&
		    !stop_listener(self, i, elsewhere))
			return NULL;
	}
	if (!all && !elsewhere) {
		/* At once: until the cancel is submitted the ring holds the socket and its port. */
		self->counters.enters++;
		iox_ring_enter(self->ring, 0, IOX_ENTER_GETEVENTS, -1, 0);
	}
	Py_RETURN_NONE;
}

int iox_listeners_traverse(const Driver *self, visitproc visit, void *arg)
{
	for (unsigned i = 0; i < self->listener_slots; i++) {
		Py_VISIT(self->listeners[i].on_connection);
		Py_VISIT(self->listeners[i].on_error);
	}
	return 0;
}

void iox_listeners_clear(Driver *self)
{
	for (unsigned i = 0; i < self->listener_slots; i++) {
		Py_CLEAR(self->listeners[i].on_connection);
		Py_CLEAR(self->listeners[i].on_error);
	}
}
