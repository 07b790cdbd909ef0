/* SPDX-License-Identifier: MIT */
/*
 * Listening sockets: taken in, armed as multishot accepts, and given up again.  What they accept goes
 * to handlers, or to asyncio's create_server(), which is a question for each listener.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

/* How long a listener rests after EMFILE and its like, in ms (issue #222 in the C# project). */
#define ACCEPT_PAUSE 100

PyObject *iox_driver_listen(Driver *self, PyObject *const *args, Py_ssize_t nargs)
{
	int fd;

	if (nargs < 1 || nargs > 2) {
		PyErr_SetString(PyExc_TypeError, "listen(fd, on_connection=None)");
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
			.on_connection = nargs == 2 && args[1] != Py_None ? Py_NewRef(args[1]) : NULL,
		};
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
	 * asyncio's listeners are O_NONBLOCK, of which io_uring makes REQ_F_NOWAIT: -EAGAIN instead of
	 * waiting.  Not once but each time: who shares the socket by fork() shares the flag as well.
	 */
	flags = listener->on_connection ? fcntl(listener->fd, F_GETFL) : -1;
	if (flags >= 0 && flags & O_NONBLOCK)
		fcntl(listener->fd, F_SETFL, flags & ~O_NONBLOCK);
	/* Neither NONBLOCK (io_uring would return -EAGAIN) nor inheritable. */
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
	return true;
}

bool iox_listeners_arm(Driver *self)
{
	for (unsigned i = 0; i < IOX_MAX_LISTENERS && self->accepting; i++) {
		struct iox_listener *listener = &self->listeners[i];

		if (listener->used && !listener->armed && !listener->stopping && !listener->retry_at &&
		    !arm_listener(self, i))
			return false;
	}
	return true;
}

static void accept_connection(Driver *self, struct iox_listener *listener, int fd)
{
	bool served = !listener->on_connection;
	Connection *conn = NULL;

	if (self->accepting && !listener->stopping &&
	    (!served || self->served_count < self->max_connections))
		conn = iox_conn_new(self, fd, served);
	if (!conn) {
		PyErr_Clear();
		close(fd);
		self->counters.accepts_shed++;
		return;
	}
	conn->on_start = Py_XNewRef(listener->on_connection);
	self->counters.accepts++;
	iox_list_append(&self->starting, &conn->starting);
}

void iox_listeners_complete(Driver *self, uint32_t generation, uint32_t index, int res, unsigned flags)
{
	struct iox_listener *listener;
	bool refused;

	if (index >= IOX_MAX_LISTENERS || !self->listeners[index].armed ||
	    self->listeners[index].generation != generation) {
		self->counters.stale_cqes++;
		return;
	}
	listener = &self->listeners[index];
	/* Of a flag that is not known, or of a listener that is none any more: once without the flag. */
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
	} else if (!listener->stopping && res != -ECONNABORTED && res != -EPROTO && res != -EINTR &&
		   res != -EAGAIN) {
		/*
		 * No descriptors, no memory, or a listener that is none any more (EINVAL, EBADF): arming
		 * again at once would fail at once, so rest, or the reactor spins.
		 */
		self->counters.accept_pauses++;
		listener->retry_at = self->now + ACCEPT_PAUSE;
	}
	/* The others belong to one connection that died in the backlog (accept(2)): go on. */
}

uint64_t iox_listeners_soonest(const Driver *self)
{
	uint64_t soonest = UINT64_MAX;

	for (unsigned i = 0; i < IOX_MAX_LISTENERS; i++)
		if (self->listeners[i].retry_at && self->listeners[i].retry_at < soonest)
			soonest = self->listeners[i].retry_at;
	return soonest;
}

void iox_listeners_expire(Driver *self)
{
	for (unsigned i = 0; i < IOX_MAX_LISTENERS; i++)
		if (self->listeners[i].retry_at && self->listeners[i].retry_at <= self->now)
			self->listeners[i].retry_at = 0;
}

static bool stop_listener(Driver *self, unsigned index)
{
	struct iox_listener *listener = &self->listeners[index];
	struct io_uring_sqe *sqe;

	if (listener->armed) {
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
	Py_CLEAR(listener->on_connection); /* here, not with the last completion: it may run Python */
	return true;
}

PyObject *iox_driver_unlisten(Driver *self, PyObject *const *args, Py_ssize_t nargs)
{
	bool all = !nargs || args[0] == Py_None;
	int fd = all ? -1 : PyObject_AsFileDescriptor(args[0]);

	if ((!all && fd < 0) || iox_driver_check_owner(self) < 0)
		return NULL;
	if (all)
		self->accepting = false;
	for (unsigned i = 0; i < IOX_MAX_LISTENERS; i++) {
		struct iox_listener *listener = &self->listeners[i];

		if (listener->used && !listener->stopping && (all || listener->fd == fd) &&
		    !stop_listener(self, i))
			return NULL;
	}
	if (!all) {
		/* Now, not with the next tick: until then the ring holds the socket, and its port. */
		self->counters.enters++;
		iox_ring_enter(self->ring, 0, IOX_ENTER_GETEVENTS, -1, 0);
	}
	Py_RETURN_NONE;
}

int iox_listeners_traverse(const Driver *self, visitproc visit, void *arg)
{
	for (unsigned i = 0; i < IOX_MAX_LISTENERS; i++)
		Py_VISIT(self->listeners[i].on_connection);
	return 0;
}

void iox_listeners_clear(Driver *self)
{
	for (unsigned i = 0; i < IOX_MAX_LISTENERS; i++)
		Py_CLEAR(self->listeners[i].on_connection);
}
