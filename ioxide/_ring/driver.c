/* SPDX-License-Identifier: MIT */
/*
 * The ring's owner.  A tick is wait(), then dispatch():
 *
 *   wait()      gives buffers back, stages what connections want to submit, one io_uring_enter(2)
 *   dispatch()  reaps the batch without running any Python code, then resumes tasks inline, one
 *               after the other, from a queue that their own completions append to
 *
 * Because tasks are only resumed from that queue, the stack stays flat however long a chain of
 * wake-ups is; and because the queue outlives an exception, KeyboardInterrupt and SystemExit may
 * leave dispatch() in the middle: the rest is still there in the next tick.
 */
#include "internal.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* How long a listener rests after EMFILE and its like, in ms (issue #222 in the C# project). */
#define ACCEPT_PAUSE 100
/* How long close() waits for the kernel to end what it still has, in ms. */
#define CLOSE_LIMIT 5000

static uint64_t clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static int check_owner(Driver *self)
{
	if (self->closed) {
		PyErr_SetString(PyExc_RuntimeError, "this driver is closed");
		return -1;
	}
	if (PyThread_get_thread_ident() != self->thread) {
		PyErr_Format(PyExc_RuntimeError,
			     "a ring is used on the thread that made it (%lu), not on thread %lu", self->thread,
			     PyThread_get_thread_ident());
		return -1;
	}
	return 0;
}

/* Hands a pending exception to on_fault; KeyboardInterrupt and SystemExit stay raised (-1). */
static int report_fault(Driver *self, const char *what)
{
	PyObject *type, *value, *traceback, *result;

	if (!PyErr_ExceptionMatches(PyExc_Exception) && !PyErr_ExceptionMatches(iox_CancelledError))
		return -1;
	PyErr_Fetch(&type, &value, &traceback);
	PyErr_NormalizeException(&type, &value, &traceback);
	if (traceback)
		PyException_SetTraceback(value, traceback);
	result = PyObject_CallFunction(self->on_fault, "sO", what, value);
	Py_XDECREF(type);
	Py_XDECREF(value);
	Py_XDECREF(traceback);
	if (!result) {
		if (!PyErr_ExceptionMatches(PyExc_Exception))
			return -1;
		PyErr_WriteUnraisable(self->on_fault);
		return 0;
	}
	Py_DECREF(result);
	return 0;
}

/* ---- Submission --------------------------------------------------------------------------- */

struct io_uring_sqe *iox_driver_sqe(Driver *self)
{
	struct io_uring_sqe *sqe = iox_ring_sqe(self->ring);

	if (!sqe) {
		/* Full: submit without waiting.  Still full (EBUSY, EAGAIN): the next tick tries again. */
		self->counters.sq_full_flushes++;
		self->counters.enters++;
		iox_ring_enter(self->ring, 0, 0, -1);
		sqe = iox_ring_sqe(self->ring);
	}
	return sqe;
}

void iox_driver_recycle(Driver *self, uint16_t bid)
{
	self->buffers_held--;
	if (self->closed)
		return;
	self->returns[self->return_count++] = bid;
	/* A slice may end on any thread; then nobody else tells the reactor that this came back. */
	if (iox_list_linked(&self->starved) && PyThread_get_thread_ident() != self->thread)
		iox_driver_wake(self);
}

void iox_driver_wake(Driver *self)
{
	uint64_t one = 1;

	if (self->wake_fd < 0)
		return;
	if (PyThread_get_thread_ident() == self->thread) {
		self->nudged = true; /* awake already: the next wait() must just not block */
		return;
	}
	if (__atomic_exchange_n(&self->wake_pending, 1, __ATOMIC_SEQ_CST)) {
		self->counters.wakes_coalesced++;
		return;
	}
	self->counters.wake_writes++;
	while (write(self->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static bool arm_listener(Driver *self, unsigned index)
{
	struct iox_listener *listener = &self->listeners[index];
	struct io_uring_sqe *sqe = iox_driver_sqe(self);

	if (!sqe)
		return false;
	/* Neither NONBLOCK (io_uring would return -EAGAIN) nor inheritable. */
	io_uring_prep_multishot_accept(sqe, listener->fd, NULL, NULL, SOCK_CLOEXEC);
	sqe->user_data = iox_user_data(IOX_KIND_ACCEPT, listener->generation, index);
	listener->armed = true;
	self->listeners_armed++;
	return true;
}

/* Buffers that the kernel has, as far as the completions reaped so far tell. */
static uint32_t free_buffers(const Driver *self)
{
	return self->ring->buf_count - self->buffers_held - self->return_count;
}

/* Prepares everything there is to submit; stops when the submission queue stays full. */
static void stage(Driver *self)
{
	struct io_uring_sqe *sqe;

	if (self->return_count) {
		for (uint32_t i = 0; i < self->return_count; i++)
			iox_ring_recycle(self->ring, self->returns[i]);
		iox_ring_publish(self->ring);
		self->return_count = 0;
	}
	/*
	 * Starved receives, the one that waits longest first, as many as there are free buffers.  Armed
	 * without one they would fail at once and the reactor would spin; counting free buffers, not
	 * returns, keeps an idle connection from using up the one chance that a busy one waits for.
	 */
	for (uint32_t free = free_buffers(self); free && iox_list_linked(&self->starved); free--) {
		Connection *conn = IOX_ENTRY(self->starved.next, Connection, starved);

		iox_list_remove(&conn->starved);
		self->counters.recv_rearms++;
		iox_want(conn, IOX_WANT_RECV);
	}
	for (unsigned i = 0; i < IOX_MAX_LISTENERS && self->accepting; i++) {
		struct iox_listener *listener = &self->listeners[i];

		if (listener->used && !listener->armed && !listener->stopping && !listener->retry_at &&
		    !arm_listener(self, i))
			return;
	}
	if (!self->wake_armed && (sqe = iox_driver_sqe(self))) {
		/* A read, not a poll: its completion has already emptied the eventfd. */
		io_uring_prep_read(sqe, self->wake_fd, &self->wake_value, sizeof(self->wake_value), 0);
		sqe->user_data = iox_user_data(IOX_KIND_WAKE, 0, 0);
		self->wake_armed = true;
	}
	if (self->poll_enabled && !self->poll_armed && (sqe = iox_driver_sqe(self))) {
		/* One shot, armed anew each time: that is what makes it level-triggered. */
		io_uring_prep_poll_add(sqe, self->poll_fd, POLLIN);
		sqe->user_data = iox_user_data(IOX_KIND_POLL, 0, 0);
		self->poll_armed = true;
	}
	while (iox_list_linked(&self->staged)) {
		Connection *conn = IOX_ENTRY(self->staged.next, Connection, staged);

		if (!iox_conn_submit(conn))
			return;
		iox_list_remove(&conn->staged);
	}
}

/* ---- Completions -------------------------------------------------------------------------- */

static uint32_t next_generation(Driver *self)
{
	self->generation = (self->generation + 1) & IOX_GENERATION_MASK;
	if (!self->generation)
		self->generation = 1;
	return self->generation;
}

static bool grow_table(Driver *self)
{
	uint32_t count = self->slot_count ? self->slot_count * 2 : 64;
	Connection **slots = PyMem_Realloc(self->slots, count * sizeof(*slots));
	uint32_t *free_slots;

	if (!slots)
		return false;
	self->slots = slots;
	free_slots = PyMem_Realloc(self->free_slots, count * sizeof(*free_slots));
	if (!free_slots)
		return false;
	self->free_slots = free_slots;
	for (uint32_t slot = count; slot > self->slot_count; slot--) {
		slots[slot - 1] = NULL;
		free_slots[self->free_count++] = slot - 1;
	}
	self->slot_count = count;
	return true;
}

static void accept_connection(Driver *self, int fd)
{
	Connection *conn;

	if (!self->accepting || self->connection_count >= self->max_connections ||
	    (!self->free_count && !grow_table(self)))
		goto shed;
	conn = (Connection *)self->connection_type->tp_alloc(self->connection_type, 0);
	if (!conn)
		goto shed;
	conn->driver = (Driver *)Py_NewRef(self);
	conn->slot = self->free_slots[--self->free_count];
	conn->generation = next_generation(self);
	conn->fd = fd;
	conn->chunks = conn->inline_chunks;
	conn->chunk_capacity = IOX_INLINE_CHUNKS;
	iox_list_init(&conn->flushes);
	iox_list_init(&conn->starting);
	iox_list_init(&conn->staged);
	iox_list_init(&conn->starved);
	iox_list_init(&conn->read_clock);
	iox_list_init(&conn->send_clock);
	self->slots[conn->slot] = conn; /* the table's reference */
	self->connection_count++;
	self->counters.accepts++;
	iox_list_append(&self->starting, &conn->starting);
	iox_want(conn, IOX_WANT_RECV);
	return;
shed:
	PyErr_Clear();
	close(fd);
	self->counters.accepts_shed++;
}

void iox_driver_forget(Driver *self, Connection *conn)
{
	self->slots[conn->slot] = NULL;
	self->free_slots[self->free_count++] = conn->slot;
	self->connection_count--;
	if (iox_list_linked(&conn->starting))
		iox_list_remove(&conn->starting);
	Py_DECREF(conn);
}

static void on_accept(Driver *self, uint32_t generation, uint32_t index, int res, unsigned flags)
{
	struct iox_listener *listener;

	if (index >= IOX_MAX_LISTENERS || !self->listeners[index].armed ||
	    self->listeners[index].generation != generation) {
		self->counters.stale_cqes++;
		return;
	}
	listener = &self->listeners[index];
	if (!(flags & IOX_CQE_F_MORE)) {
		listener->armed = false;
		self->listeners_armed--;
		if (listener->stopping)
			listener->used = false;
		else
			self->counters.accept_rearms++;
	}
	if (res >= 0) {
		accept_connection(self, res);
	} else if (res == -EMFILE || res == -ENFILE || res == -ENOBUFS || res == -ENOMEM) {
		/* Arming again at once would fail at once: rest, or the reactor spins. */
		self->counters.accept_pauses++;
		listener->retry_at = self->now + ACCEPT_PAUSE;
	}
	/* Other errors belong to one connection that died in the backlog (accept(2)): go on. */
}

static Connection *find(Driver *self, uint32_t generation, uint32_t slot)
{
	Connection *conn = slot < self->slot_count ? self->slots[slot] : NULL;

	return conn && conn->generation == generation ? conn : NULL;
}

static void on_completion(Driver *self, uint64_t user_data, int res, unsigned flags)
{
	uint32_t generation = (user_data >> 32) & IOX_GENERATION_MASK, slot = (uint32_t)user_data;
	Connection *conn;

	switch (user_data >> 56) {
	case IOX_KIND_RECV:
		if (flags & IOX_CQE_F_BUFFER && flags >> IOX_CQE_BUFFER_SHIFT >= self->ring->buf_count) {
			self->counters.unknown_cqes++;
			return;
		}
		if (flags & IOX_CQE_F_BUFFER)
			self->buffers_held++;
		conn = find(self, generation, slot);
		if (!conn || !conn->recv_armed || res > (int)self->ring->buf_size) {
			self->counters.stale_cqes++;
			if (flags & IOX_CQE_F_BUFFER)
				iox_driver_recycle(self, (uint16_t)(flags >> IOX_CQE_BUFFER_SHIFT));
			return;
		}
		iox_conn_on_recv(conn, res, flags);
		return;
	case IOX_KIND_SEND:
		conn = find(self, generation, slot);
		if (!conn || !conn->send_armed) {
			self->counters.stale_cqes++;
			return;
		}
		iox_conn_on_send(conn, res);
		return;
	case IOX_KIND_ACCEPT:
		on_accept(self, generation, slot, res, flags);
		return;
	case IOX_KIND_WAKE:
		/* Cleared before anything that a waker may have queued is looked at. */
		self->wake_armed = false;
		self->counters.wake_cqes++;
		__atomic_exchange_n(&self->wake_pending, 0, __ATOMIC_SEQ_CST);
		return;
	case IOX_KIND_POLL:
		self->poll_armed = false;
		self->poll_ready = true;
		return;
	case IOX_KIND_CANCEL:
		return; /* the cancelled operation has a completion of its own */
	default:
		self->counters.unknown_cqes++;
	}
}

static void reap(Driver *self)
{
	struct io_uring_cq *cq = &self->ring->uring.cq;
	unsigned head = *cq->khead, tail = __atomic_load_n(cq->ktail, __ATOMIC_ACQUIRE);

	if (iox_ring_overflowed(self->ring))
		self->counters.cq_overflow_events++;
	self->counters.cqes += tail - head;
	for (; head != tail; head++) {
		const struct io_uring_cqe *cqe = &cq->cqes[head & cq->ring_mask];

		on_completion(self, cqe->user_data, cqe->res, cqe->flags);
	}
	__atomic_store_n(cq->khead, head, __ATOMIC_RELEASE);
}

static void expire_clocks(Driver *self)
{
	while (iox_list_linked(&self->read_clocks)) {
		Connection *conn = IOX_ENTRY(self->read_clocks.next, Connection, read_clock);

		if (conn->read_deadline > self->now)
			break;
		self->counters.read_timeouts++;
		iox_conn_abort(conn, "nothing was received within read_timeout_ms");
	}
	while (iox_list_linked(&self->send_clocks)) {
		Connection *conn = IOX_ENTRY(self->send_clocks.next, Connection, send_clock);

		if (conn->send_deadline > self->now)
			break;
		self->counters.send_timeouts++;
		iox_conn_abort(conn, "the peer did not take what was sent within send_timeout_ms");
	}
	for (unsigned i = 0; i < IOX_MAX_LISTENERS; i++)
		if (self->listeners[i].retry_at && self->listeners[i].retry_at <= self->now)
			self->listeners[i].retry_at = 0;
}

/* ms until the next clock runs out, or -1 when none runs. */
static int64_t next_clock(Driver *self)
{
	uint64_t soonest = UINT64_MAX;

	if (iox_list_linked(&self->read_clocks))
		soonest = IOX_ENTRY(self->read_clocks.next, Connection, read_clock)->read_deadline;
	if (iox_list_linked(&self->send_clocks)) {
		uint64_t at = IOX_ENTRY(self->send_clocks.next, Connection, send_clock)->send_deadline;

		soonest = at < soonest ? at : soonest;
	}
	for (unsigned i = 0; i < IOX_MAX_LISTENERS; i++)
		if (self->listeners[i].retry_at && self->listeners[i].retry_at < soonest)
			soonest = self->listeners[i].retry_at;
	if (soonest == UINT64_MAX)
		return -1;
	return soonest > self->now ? (int64_t)(soonest - self->now) : 0;
}

/* ---- Methods ------------------------------------------------------------------------------ */

static int enter(Driver *self, unsigned wait_nr, int64_t timeout_ns)
{
	int ret;

	self->counters.enters++;
	Py_BEGIN_ALLOW_THREADS
	ret = iox_ring_enter(self->ring, wait_nr, IOX_ENTER_GETEVENTS, timeout_ns);
	Py_END_ALLOW_THREADS
	self->now = clock_ms();
	if (ret == -EINTR)
		self->counters.enter_eintr++;
	else if (ret == -EAGAIN)
		self->counters.enter_eagain++;
	else if (ret == -EBUSY)
		self->counters.enter_ebusy++;
	else if (ret < 0 && ret != -ETIME)
		return ret;
	return 0;
}

/* Whether wait() must not block: something is left over from, or was queued since, the last tick. */
static bool work_is_waiting(Driver *self)
{
	return self->nudged || iox_list_linked(&self->ready) || iox_list_linked(&self->starting) ||
	       iox_list_linked(&self->staged) || self->poll_ready || iox_ring_ready(self->ring) ||
	       (iox_list_linked(&self->starved) && free_buffers(self));
}

PyDoc_STRVAR(driver_wait_doc,
"wait(timeout)\n--\n\n"
"Submit what is staged and wait for a completion, at most `timeout` seconds (None: for ever).");

static PyObject *driver_wait(Driver *self, PyObject *timeout)
{
	int64_t timeout_ns = -1, clock;
	int ret;

	if (check_owner(self) < 0)
		return NULL;
	if (self->dispatching) {
		PyErr_SetString(PyExc_RuntimeError, "wait() was called from inside dispatch()");
		return NULL;
	}
	if (timeout != Py_None) {
		double seconds = PyFloat_AsDouble(timeout);

		if (seconds == -1.0 && PyErr_Occurred())
			return NULL;
		/* Rounded up, as selectors.EpollSelector does: waking early would spin. */
		timeout_ns = seconds <= 0 ? 0 : seconds > 1e9 ? (int64_t)1e18 : (int64_t)(seconds * 1e9) + 1;
	}
	stage(self);
	if (work_is_waiting(self)) {
		timeout_ns = 0;
	} else if ((clock = next_clock(self)) >= 0) {
		clock = clock * 1000000;
		if (timeout_ns < 0 || clock < timeout_ns)
			timeout_ns = clock;
	}
	/*
	 * GETEVENTS also when not waiting: under DEFER_TASKRUN nothing completes unless the owner asks.
	 */
	ret = enter(self, timeout_ns == 0 ? 0 : 1, timeout_ns == 0 ? -1 : timeout_ns);
	if (ret < 0) {
		errno = -ret;
		return PyErr_SetFromErrno(PyExc_OSError);
	}
	if (PyErr_CheckSignals() < 0)
		return NULL;
	Py_RETURN_NONE;
}

static int start_connections(Driver *self)
{
	while (iox_list_linked(&self->starting)) {
		Connection *conn = IOX_ENTRY(self->starting.next, Connection, starting);
		PyObject *result;
		int ret = 0;

		iox_list_remove(&conn->starting);
		Py_INCREF(conn);
		result = PyObject_CallOneArg(self->on_connection, (PyObject *)conn);
		if (!result) {
			iox_conn_abort(conn, "the handler could not be started");
			ret = report_fault(self, "a connection's handler could not be started");
		}
		Py_XDECREF(result);
		Py_DECREF(conn);
		if (ret < 0)
			return -1;
	}
	return 0;
}

static int resume_waiters(Driver *self)
{
	while (iox_list_linked(&self->ready)) {
		Waiter *waiter = IOX_ENTRY(self->ready.next, Waiter, ready);
		int ret;

		iox_list_remove(&waiter->ready);
		ret = iox_waiter_resume(waiter);
		Py_DECREF(waiter);
		if (ret < 0) {
			self->counters.wakeup_faults++;
			if (report_fault(self, "resuming a task raised") < 0)
				return -1;
		}
	}
	return 0;
}

PyDoc_STRVAR(driver_dispatch_doc,
"dispatch()\n--\n\n"
"Take in the batch and resume inline every task it has woken.  True when the loop's own selector\n"
"has something ready.");

static PyObject *driver_dispatch(Driver *self, PyObject *Py_UNUSED(ignored))
{
	bool poll_ready;

	if (check_owner(self) < 0)
		return NULL;
	if (self->dispatching) {
		PyErr_SetString(PyExc_RuntimeError, "dispatch() was called from inside dispatch()");
		return NULL;
	}
	self->dispatching = true;
	self->nudged = false;
	reap(self);
	expire_clocks(self);
	if (start_connections(self) < 0 || resume_waiters(self) < 0) {
		self->dispatching = false;
		return NULL; /* what is left stays queued, poll_ready included */
	}
	self->dispatching = false;
	poll_ready = self->poll_ready;
	self->poll_ready = false;
	return PyBool_FromLong(poll_ready);
}

static PyObject *driver_listen(Driver *self, PyObject *arg)
{
	long fd = PyLong_AsLong(arg);

	if ((fd == -1 && PyErr_Occurred()) || check_owner(self) < 0)
		return NULL;
	for (unsigned i = 0; i < IOX_MAX_LISTENERS; i++) {
		struct iox_listener *listener = &self->listeners[i];

		if (listener->used)
			continue;
		*listener = (struct iox_listener){
			.fd = (int)fd,
			.used = true,
			.generation = next_generation(self),
		};
		self->accepting = true;
		Py_RETURN_NONE;
	}
	PyErr_Format(PyExc_RuntimeError, "a driver has at most %d listeners", IOX_MAX_LISTENERS);
	return NULL;
}

PyDoc_STRVAR(driver_unlisten_doc,
"unlisten()\n--\n\n"
"Stop accepting.  The listening sockets may be closed once listeners_armed is 0.");

static PyObject *driver_unlisten(Driver *self, PyObject *Py_UNUSED(ignored))
{
	if (check_owner(self) < 0)
		return NULL;
	self->accepting = false;
	for (unsigned i = 0; i < IOX_MAX_LISTENERS; i++) {
		struct iox_listener *listener = &self->listeners[i];
		struct io_uring_sqe *sqe;

		if (!listener->used || listener->stopping)
			continue;
		listener->stopping = true;
		listener->retry_at = 0;
		if (!listener->armed) {
			listener->used = false;
			continue;
		}
		sqe = iox_driver_sqe(self);
		if (!sqe) {
			listener->stopping = false;
			PyErr_SetString(PyExc_BlockingIOError, "the submission queue stays full: try again");
			return NULL;
		}
		io_uring_prep_cancel64(sqe, iox_user_data(IOX_KIND_ACCEPT, listener->generation, i), 0);
		sqe->user_data = iox_user_data(IOX_KIND_CANCEL, 0, 0);
	}
	Py_RETURN_NONE;
}

static PyObject *driver_wake(Driver *self, PyObject *Py_UNUSED(ignored))
{
	iox_driver_wake(self);
	Py_RETURN_NONE;
}

static PyObject *driver_attach(Driver *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "loop", "poll_fd", "on_connection", "on_fault", NULL };
	PyObject *loop, *on_connection, *on_fault;
	int poll_fd;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OiOO:attach", names, &loop, &poll_fd,
					 &on_connection, &on_fault) ||
	    check_owner(self) < 0)
		return NULL;
	Py_XSETREF(self->loop, Py_NewRef(loop));
	Py_XSETREF(self->on_connection, Py_NewRef(on_connection));
	Py_XSETREF(self->on_fault, Py_NewRef(on_fault));
	self->poll_fd = poll_fd;
	self->poll_enabled = poll_fd >= 0;
	Py_RETURN_NONE;
}

static PyObject *driver_connections(Driver *self, PyObject *Py_UNUSED(ignored))
{
	PyObject *list = PyList_New(0);

	for (uint32_t slot = 0; list && slot < self->slot_count; slot++)
		if (self->slots[slot] && PyList_Append(list, (PyObject *)self->slots[slot]) < 0)
			Py_CLEAR(list);
	return list;
}

static PyObject *driver_counters(Driver *self, PyObject *Py_UNUSED(ignored))
{
	self->counters.slab_hits = self->slabs.hits;
	self->counters.slab_misses = self->slabs.misses;
#define X(name) "sK,"
	return Py_BuildValue("{" IOX_COUNTERS(X) "sk,sk,sk,sk}",
#undef X
#define X(name) #name, (unsigned long long)self->counters.name,
			     IOX_COUNTERS(X)
#undef X
			     "connections_now", (unsigned long)self->connection_count,
			     "buffers_held_now", (unsigned long)self->buffers_held,
			     "slices_lent_now", (unsigned long)self->slices_out,
			     "listeners_armed_now", (unsigned long)self->listeners_armed);
}

/*
 * Ends everything the kernel still has: after this no slab or buffer of ours is in anyone's hands.
 * False when it did not let go in time; the memory must then be left alone for ever.
 */
static bool drain(Driver *self)
{
	uint64_t deadline = clock_ms() + CLOSE_LIMIT;
	struct io_uring_sqe *sqe;

	self->accepting = false;
	self->poll_enabled = false;
	for (uint32_t slot = 0; slot < self->slot_count; slot++)
		if (self->slots[slot])
			iox_conn_abort(self->slots[slot], "the reactor was stopped");
	stage(self);
	sqe = iox_driver_sqe(self);
	if (sqe) {
		/* What is not a connection's: accepts, the wake-up read, the poll. */
		io_uring_prep_cancel64(sqe, 0, IOX_ASYNC_CANCEL_ALL | IOX_ASYNC_CANCEL_ANY);
		sqe->user_data = iox_user_data(IOX_KIND_CANCEL, 0, 0);
	}
	for (;;) {
		uint64_t now = clock_ms();

		if (!self->connection_count && !self->listeners_armed && !self->wake_armed &&
		    !self->poll_armed)
			return true;
		if (now >= deadline || enter(self, 1, (int64_t)(deadline - now) * 1000000) < 0)
			return false;
		reap(self);
		while (iox_list_linked(&self->starting))
			iox_list_remove(self->starting.next);
		for (uint32_t slot = 0; slot < self->slot_count; slot++)
			if (self->slots[slot])
				iox_conn_abort(self->slots[slot], "the reactor was stopped");
		while (iox_list_linked(&self->staged)) {
			Connection *conn = IOX_ENTRY(self->staged.next, Connection, staged);

			if (!iox_conn_submit(conn))
				break;
			iox_list_remove(&conn->staged);
		}
	}
}

PyDoc_STRVAR(driver_close_doc,
"close()\n--\n\n"
"End every operation, give back buffers and slabs, close the ring and the eventfd.  False when the\n"
"kernel did not let go of an operation within 5 s; its memory then stays mapped.");

static PyObject *driver_close(Driver *self, PyObject *Py_UNUSED(ignored))
{
	bool drained;

	if (self->closed)
		Py_RETURN_TRUE;
	if (check_owner(self) < 0)
		return NULL;
	drained = drain(self);
	while (iox_list_linked(&self->ready)) {
		Waiter *waiter = IOX_ENTRY(self->ready.next, Waiter, ready);

		iox_list_remove(&waiter->ready);
		waiter->state = IOX_WAITER_DONE;
		Py_DECREF(waiter);
	}
	self->closed = true;
	close(self->wake_fd);
	self->wake_fd = -1;
	if (drained) {
		iox_ring_shut(self->ring);
		iox_slab_pool_clear(&self->slabs);
	}
	Py_CLEAR(self->on_connection);
	Py_CLEAR(self->on_fault);
	return PyBool_FromLong(drained);
}

static int driver_traverse(Driver *self, visitproc visit, void *arg)
{
	Py_VISIT(self->loop);
	Py_VISIT(self->on_connection);
	Py_VISIT(self->on_fault);
	Py_VISIT(self->connection_type);
	return 0;
}

static int driver_clear(Driver *self)
{
	Py_CLEAR(self->loop);
	Py_CLEAR(self->on_connection);
	Py_CLEAR(self->on_fault);
	return 0;
}

static void driver_dealloc(Driver *self)
{
	PyObject_GC_UnTrack(self);
	driver_clear(self);
	Py_CLEAR(self->connection_type);
	if (!self->closed && self->ring) {
		/* Nobody called close(): the ring goes, the memory that the kernel may use stays. */
		PyErr_WarnEx(PyExc_ResourceWarning, "a driver was dropped without close()", 1);
		close(self->wake_fd);
		iox_ring_shut(self->ring);
	} else if (self->ring && self->ring->uring.ring_fd < 0) {
		iox_ring_free(self->ring);
	}
	PyMem_Free(self->slots);
	PyMem_Free(self->free_slots);
	PyMem_Free(self->returns);
	PyObject_GC_Del(self);
}

static PyObject *driver_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "ring", "connection_type", "recv_queue_entries", "max_connections",
				 "write_slab_size", "write_limit", "pool_max", "read_timeout_ms",
				 "send_timeout_ms", NULL };
	unsigned long long address, read_timeout, send_timeout;
	unsigned int queue, connections, pool_max;
	Py_ssize_t slab_size, write_limit;
	PyObject *connection_type;
	Driver *self;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "KO!IInnIKK:Driver", names, &address, &PyType_Type,
					 &connection_type, &queue, &connections, &slab_size, &write_limit,
					 &pool_max, &read_timeout, &send_timeout))
		return NULL;
	if (!PyType_IsSubtype((PyTypeObject *)connection_type, &iox_ConnectionType)) {
		PyErr_SetString(PyExc_TypeError, "connection_type must be a subclass of Connection");
		return NULL;
	}
	self = (Driver *)type->tp_alloc(type, 0);
	if (!self)
		return NULL;
	self->wake_fd = self->poll_fd = -1;
	self->connection_type = (PyTypeObject *)Py_NewRef(connection_type);
	self->thread = PyThread_get_thread_ident();
	self->recv_queue_entries = queue;
	self->max_connections = connections;
	self->write_limit = (size_t)write_limit;
	self->read_timeout = read_timeout;
	self->send_timeout = send_timeout;
	self->now = clock_ms();
	iox_list_init(&self->ready);
	iox_list_init(&self->starting);
	iox_list_init(&self->staged);
	iox_list_init(&self->starved);
	iox_list_init(&self->read_clocks);
	iox_list_init(&self->send_clocks);
	self->returns = PyMem_Calloc(((iox_ring *)(uintptr_t)address)->buf_count, sizeof(*self->returns));
	if (!self->returns || !iox_slab_pool_init(&self->slabs, (size_t)slab_size, pool_max)) {
		Py_DECREF(self);
		return PyErr_NoMemory();
	}
	self->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (self->wake_fd < 0) {
		PyErr_SetFromErrno(PyExc_OSError);
		Py_DECREF(self);
		return NULL;
	}
	self->ring = (iox_ring *)(uintptr_t)address; /* from here on ours */
	return (PyObject *)self;
}

static PyObject *driver_get_listeners_armed(Driver *self, void *Py_UNUSED(closure))
{
	return PyLong_FromUnsignedLong(self->listeners_armed);
}

static PyObject *driver_get_connection_count(Driver *self, void *Py_UNUSED(closure))
{
	return PyLong_FromUnsignedLong(self->connection_count);
}

static PyObject *driver_get_wake_fd(Driver *self, void *Py_UNUSED(closure))
{
	return PyLong_FromLong(self->wake_fd);
}

static PyObject *driver_get_loop(Driver *self, void *Py_UNUSED(closure))
{
	return Py_NewRef(self->loop ? self->loop : Py_None);
}

static PyMethodDef driver_methods[] = {
	{ "attach", (PyCFunction)(void *)driver_attach, METH_VARARGS | METH_KEYWORDS, NULL },
	{ "wait", (PyCFunction)driver_wait, METH_O, driver_wait_doc },
	{ "dispatch", (PyCFunction)driver_dispatch, METH_NOARGS, driver_dispatch_doc },
	{ "listen", (PyCFunction)driver_listen, METH_O, NULL },
	{ "unlisten", (PyCFunction)driver_unlisten, METH_NOARGS, driver_unlisten_doc },
	{ "wake", (PyCFunction)driver_wake, METH_NOARGS, "wake()\n--\n\nEnd a wait(); from any thread." },
	{ "connections", (PyCFunction)driver_connections, METH_NOARGS, NULL },
	{ "counters", (PyCFunction)driver_counters, METH_NOARGS, NULL },
	{ "close", (PyCFunction)driver_close, METH_NOARGS, driver_close_doc },
	{ NULL },
};

static PyGetSetDef driver_getset[] = {
	{ "listeners_armed", (getter)driver_get_listeners_armed, NULL, NULL, NULL },
	{ "connection_count", (getter)driver_get_connection_count, NULL, NULL, NULL },
	{ "wake_fd", (getter)driver_get_wake_fd, NULL, NULL, NULL },
	{ "loop", (getter)driver_get_loop, NULL, NULL, NULL },
	{ NULL },
};

PyTypeObject iox_DriverType = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "ioxide._ring._core.Driver",
	.tp_basicsize = sizeof(Driver),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
	.tp_doc = "The owner of one ring; ioxide.driver.Driver is the face with the documentation.",
	.tp_new = driver_new,
	.tp_dealloc = (destructor)driver_dealloc,
	.tp_traverse = (traverseproc)driver_traverse,
	.tp_clear = (inquiry)driver_clear,
	.tp_methods = driver_methods,
	.tp_getset = driver_getset,
};

int iox_driver_init(PyObject *module)
{
	return PyModule_AddType(module, &iox_DriverType);
}
