/* SPDX-License-Identifier: MIT */
/*
 * The ring's owner.  A tick is wait(), then dispatch():
 *
 *   wait()      gives buffers back, stages what connections want to submit, one io_uring_enter(2)
 *   dispatch()  reaps the batch without running any Python code (tick.c), then resumes tasks
 *               inline, one after the other, from a queue that their own completions append to
 *
 * Because tasks are only resumed from that queue, the stack stays flat however long a chain of
 * wake-ups is; and because the queue outlives an exception, KeyboardInterrupt and SystemExit may
 * leave dispatch() in the middle: the rest is still there in the next tick.
 */
#include "internal.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>


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
int iox_driver_report(Driver *self, const char *what)
{
	PyObject *type, *value, *traceback, *result;

	/* As in asyncio.Handle: of BaseException only these two unwind the loop. */
	if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit))
		return -1;
	if (!self->on_fault) { /* a worker's, after the end */
		PyErr_WriteUnraisable((PyObject *)self);
		return 0;
	}
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
	/* Handlers ran since the last look: clocks that are set or waited for now count from now. */
	self->now = iox_clock_ms();
	iox_tick_stage(self);
	if (iox_list_linked(&self->handing))
		iox_workers_hand_over(self); /* before the clocks: a worker may set one meanwhile */
	if (iox_tick_must_not_block(self)) {
		timeout_ns = 0;
	} else if ((clock = iox_tick_next_clock(self)) >= 0) {
		clock = clock * 1000000;
		if (timeout_ns < 0 || clock < timeout_ns)
			timeout_ns = clock;
	}
	/*
	 * GETEVENTS also when not waiting: under DEFER_TASKRUN nothing completes unless the owner asks.
	 */
	self->sleeping_until = timeout_ns < 0 ? UINT64_MAX : self->now + (uint64_t)timeout_ns / 1000000;
	ret = iox_tick_enter(self, timeout_ns != 0, timeout_ns);
	self->sleeping_until = 0;
	if (ret < 0) {
		errno = -ret;
		return PyErr_SetFromErrno(PyExc_OSError);
	}
	if (PyErr_CheckSignals() < 0)
		return NULL;
	Py_RETURN_NONE;
}

/* What was to be called with the next tick: this is it. */
static void take_next(Driver *self)
{
	while (iox_list_linked(&self->next)) {
		struct iox_node *node = self->next.next;

		iox_list_remove(node);
		iox_list_append(&self->ready, node);
	}
}

static int start_connections(Driver *self)
{
	while (iox_list_linked(&self->starting)) {
		Connection *conn = IOX_ENTRY(self->starting.next, Connection, starting);
		PyObject *result, *callback;
		int ret = 0;

		iox_list_remove(&conn->starting);
		Py_INCREF(conn);
		callback = conn->on_start ? conn->on_start : Py_NewRef(self->on_connection);
		conn->on_start = NULL;
		result = PyObject_CallOneArg(callback, (PyObject *)conn);
		Py_DECREF(callback);
		if (!result) {
			iox_conn_abort(conn, IOX_CAUSE_FAULT, "the handler could not be started");
			ret = iox_driver_report(self, "a connection's handler could not be started");
		}
		Py_XDECREF(result);
		Py_DECREF(conn);
		if (ret < 0)
			return -1;
	}
	return 0;
}

/* Mode posted: the task goes on from the queue of posts, at the top of the loop. */
static int post_resumption(Driver *self, Waiter *waiter)
{
	PyObject *resume = PyObject_GetAttrString((PyObject *)waiter, "_resume");
	PyObject *result = resume ? PyObject_CallOneArg(self->on_resume, resume) : NULL;

	Py_XDECREF(resume);
	Py_XDECREF(result);
	return result ? 0 : -1;
}

static int resume_waiters(Driver *self)
{
	while (iox_list_linked(&self->ready)) {
		Waiter *waiter = IOX_ENTRY(self->ready.next, Waiter, ready);
		int ret;

		iox_list_remove(&waiter->ready);
		if (self->on_resume && !waiter->settles && !waiter->standing)
			ret = post_resumption(self, waiter);
		else
			ret = iox_waiter_resume(waiter);
		Py_DECREF(waiter);
		if (ret < 0) {
			self->counters.wakeup_faults++;
			if (iox_driver_report(self, "resuming a task raised") < 0)
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
	if (!self->on_connection) {
		PyErr_SetString(PyExc_RuntimeError, "this driver has no loop: call attach() first");
		return NULL;
	}
	self->dispatching = true;
	self->nudged = false;
	take_next(self);
	iox_tick_reap(self);
	iox_tick_expire(self);
	if (start_connections(self) < 0 || resume_waiters(self) < 0) {
		self->dispatching = false;
		return NULL; /* what is left stays queued, poll_ready included */
	}
	self->dispatching = false;
	poll_ready = self->poll_ready;
	self->poll_ready = false;
	return PyBool_FromLong(poll_ready);
}

PyDoc_STRVAR(driver_feed_doc,
"_feed(batch)\n--\n\n"
"For tests: take (user_data, res, flags) in as if the kernel had completed it.");

static PyObject *driver_feed(Driver *self, PyObject *batch)
{
	PyObject *list;

	if (check_owner(self) < 0)
		return NULL;
	list = PySequence_List(batch);
	for (Py_ssize_t i = 0; list && i < PyList_GET_SIZE(list); i++) {
		unsigned long long user_data;
		unsigned int flags;
		int res;

		if (!PyArg_ParseTuple(PyList_GET_ITEM(list, i), "KiI", &user_data, &res, &flags))
			Py_CLEAR(list);
		else
			iox_tick_complete(self, user_data, res, flags);
	}
	if (!list)
		return NULL;
	Py_DECREF(list);
	Py_RETURN_NONE;
}

PyDoc_STRVAR(driver_listen_doc,
"listen(fd, on_connection=None)\n--\n\n"
"Accept on a listening socket.  Its connections go to `on_connection`, as connections of asyncio\n"
"without clocks and limits; to the driver's own on_connection, with both, when there is none.");

static PyObject *driver_listen(Driver *self, PyObject *const *args, Py_ssize_t nargs)
{
	long fd = nargs ? PyLong_AsLong(args[0]) : -1;

	if (nargs < 1 || nargs > 2) {
		PyErr_SetString(PyExc_TypeError, "listen(fd, on_connection=None)");
		return NULL;
	}
	if ((fd == -1 && PyErr_Occurred()) || check_owner(self) < 0)
		return NULL;
	for (unsigned i = 0; i < IOX_MAX_LISTENERS; i++) {
		struct iox_listener *listener = &self->listeners[i];

		if (listener->used)
			continue;
		*listener = (struct iox_listener){
			.fd = (int)fd,
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

PyDoc_STRVAR(driver_unlisten_doc,
"unlisten(fd=None)\n--\n\n"
"Stop accepting, on one listening socket or on all.  One may be closed at once, and its port is then\n"
"free; all of them may be closed once listeners_armed is 0.");

static PyObject *driver_unlisten(Driver *self, PyObject *const *args, Py_ssize_t nargs)
{
	bool all = !nargs || args[0] == Py_None;
	long fd = all ? -1 : PyLong_AsLong(args[0]);

	if ((!all && fd == -1 && PyErr_Occurred()) || check_owner(self) < 0)
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

PyDoc_STRVAR(driver_adopt_doc,
"_adopt(fd)\n--\n\n"
"Take a connected TCP socket over; None, and nothing has changed, when there is no room for it.");

static PyObject *driver_adopt(Driver *self, PyObject *fd)
{
	return check_owner(self) < 0 ? NULL : iox_driver_adopt(self, fd);
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

PyDoc_STRVAR(driver_continue_doc,
"continue_by(on_resume, wake_each)\n--\n\n"
"How parked tasks go on when it is not inline: on_resume(call) is given each task's resumption;\n"
"wake_each makes every call from another thread write a wake of its own.");

static PyObject *driver_continue_by(Driver *self, PyObject *args)
{
	PyObject *on_resume;
	int wake_each;

	if (!PyArg_ParseTuple(args, "Op:continue_by", &on_resume, &wake_each) || check_owner(self) < 0)
		return NULL;
	Py_XSETREF(self->on_resume, on_resume == Py_None ? NULL : Py_NewRef(on_resume));
	self->wake_each = wake_each;
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
	return iox_driver_counters(self);
}

/* Nothing completes any more: tasks have ended, futures of other threads hear of it. */
static void settle_waiters(Driver *self)
{
	take_next(self);
	while (iox_list_linked(&self->ready)) {
		Waiter *waiter = IOX_ENTRY(self->ready.next, Waiter, ready);

		iox_list_remove(&waiter->ready);
		if (waiter->settles && iox_waiter_resume(waiter) < 0)
			PyErr_WriteUnraisable((PyObject *)waiter);
		waiter->state = IOX_WAITER_DONE;
		Py_DECREF(waiter);
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
	if (self->dispatching) {
		PyErr_SetString(PyExc_RuntimeError, "close() was called from inside dispatch()");
		return NULL;
	}
	drained = iox_driver_drain(self);
	self->closed = true;
	iox_foreign_drain(self); /* what came while the kernel was waited for */
	close(self->wake_fd);
	self->wake_fd = -1;
	/*
	 * Closing a ring is asynchronous, unregistering its buffers is not: so that goes first, and
	 * only then may their memory go.
	 */
	if (drained && self->shared)
		iox_group_unregister(self->shared, self->ring->uring.ring_fd);
	self->counters.cqes_dropped = iox_ring_dropped(self->ring);
	iox_ring_close(self->ring);
	self->ring = NULL;
	if (drained) {
		if (self->shared)
			iox_group_unref(self->shared);
		self->shared = NULL;
		iox_slab_pool_clear(&self->slabs);
	}
	settle_waiters(self);
	iox_workers_hand_over(self); /* tasks there hear that their connections have ended */
	Py_CLEAR(self->on_connection);
	Py_CLEAR(self->on_resume);
	Py_CLEAR(self->on_fault);
	for (unsigned i = 0; i < IOX_MAX_LISTENERS; i++)
		Py_CLEAR(self->listeners[i].on_connection);
	return PyBool_FromLong(drained);
}

static int driver_traverse(Driver *self, visitproc visit, void *arg)
{
	Py_VISIT(self->loop);
	Py_VISIT(self->on_connection);
	Py_VISIT(self->on_fault);
	Py_VISIT(self->on_resume);
	Py_VISIT(self->connection_type);
	for (unsigned i = 0; i < IOX_MAX_LISTENERS; i++)
		Py_VISIT(self->listeners[i].on_connection);
	return 0;
}

static int driver_clear(Driver *self)
{
	Py_CLEAR(self->on_resume);
	Py_CLEAR(self->loop);
	Py_CLEAR(self->on_connection);
	Py_CLEAR(self->on_fault);
	for (unsigned i = 0; i < IOX_MAX_LISTENERS; i++)
		Py_CLEAR(self->listeners[i].on_connection);
	return 0;
}

static void driver_dealloc(Driver *self)
{
	PyObject *type, *value, *traceback;

	PyObject_GC_UnTrack(self);
	driver_clear(self);
	Py_CLEAR(self->connection_type);
	if (!self->closed && self->ring) {
		/* Nobody called close(): the ring goes, the memory that the kernel may use stays. */
		PyErr_Fetch(&type, &value, &traceback);
		if (PyErr_WarnEx(PyExc_ResourceWarning, "a driver was dropped without close()", 1) < 0)
			PyErr_WriteUnraisable(NULL);
		PyErr_Restore(type, value, traceback);
		close(self->wake_fd);
		iox_ring_close(self->ring);
	}
	PyMem_Free(self->slots);
	PyMem_Free(self->free_slots);
	PyMem_Free(self->free_groups);
	PyMem_Free(self->foreign.ops);
	PyObject_GC_Del(self);
}

static bool init_groups(Driver *self, unsigned groups)
{
	int ret;

	if (groups) {
		self->free_groups = PyMem_Calloc(groups, sizeof(*self->free_groups));
		if (!self->free_groups) {
			PyErr_NoMemory();
			return false;
		}
		for (unsigned i = groups; i; i--)
			self->free_groups[self->free_group_count++] = (uint16_t)(IOX_FIRST_GROUP + i - 1);
		return true;
	}
	self->shared = iox_group_new(self->group_slots, self->group_size, false);
	ret = -ENOMEM;
	if (self->shared) {
		Py_BEGIN_ALLOW_THREADS
		ret = iox_group_register_waiting(self->shared, self->ring->uring.ring_fd, IOX_SHARED_GROUP);
		Py_END_ALLOW_THREADS
	}
	if (ret < 0) {
		errno = -ret;
		PyErr_SetFromErrno(PyExc_OSError);
	}
	return ret >= 0;
}

PyDoc_STRVAR(driver_doc,
"Driver(ring, *, ...)\n--\n\n"
"The owner of one ring; ioxide.driver.Driver is the face with the documentation.\n"
"Takes the ring over also when it raises.");

static PyObject *driver_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "ring", "connection_type", "groups", "recv_slots", "recv_buffer_size",
				 "bundle", "recv_queue_entries", "max_connections", "write_slab_size",
				 "write_limit", "segmented", "pool_max", "zero_copy", "read_timeout_ms",
				 "send_timeout_ms", "min_wait_us", "min_wait_nr", NULL };
	unsigned long long address, read_timeout, send_timeout;
	unsigned int groups, slots, size, queue, connections, pool_max, min_wait_us, min_wait_nr;
	Py_ssize_t slab_size, write_limit;
	PyObject *connection_type;
	int bundle, segmented, zero_copy;
	Driver *self;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "KO!$IIIpIInnpIpKKII:Driver", names, &address,
					 &PyType_Type, &connection_type, &groups, &slots, &size, &bundle,
					 &queue, &connections, &slab_size, &write_limit, &segmented, &pool_max,
					 &zero_copy, &read_timeout, &send_timeout, &min_wait_us,
					 &min_wait_nr))
		return NULL;
	if (!PyType_IsSubtype((PyTypeObject *)connection_type, &iox_ConnectionType)) {
		PyErr_SetString(PyExc_TypeError, "connection_type must be a subclass of Connection");
		return NULL;
	}
	self = (Driver *)type->tp_alloc(type, 0);
	if (!self)
		return NULL;
	self->closed = true; /* until everything is there */
	self->wake_fd = self->poll_fd = -1;
	self->ring = (iox_ring *)(uintptr_t)address;
	self->connection_type = (PyTypeObject *)Py_NewRef(connection_type);
	self->thread = PyThread_get_thread_ident();
	self->group_slots = slots;
	self->group_size = size;
	self->bundle = bundle;
	self->recv_queue_entries = queue;
	self->max_connections = connections;
	self->write_limit = (size_t)write_limit;
	self->zero_copy = self->zero_copy_report = zero_copy;
	self->read_timeout = read_timeout;
	self->send_timeout = send_timeout;
	self->min_wait_us = min_wait_us;
	self->min_wait_nr = min_wait_nr;
	self->now = iox_clock_ms();
	iox_list_init(&self->ready);
	iox_list_init(&self->next);
	iox_list_init(&self->handing);
	iox_list_init(&self->starting);
	iox_list_init(&self->staged);
	iox_list_init(&self->starved);
	iox_list_init(&self->read_clocks);
	iox_list_init(&self->send_clocks);
	if (!init_groups(self, groups))
		goto error;
	if (!iox_slab_pool_init(&self->slabs, (size_t)slab_size, self->write_limit, pool_max, segmented)) {
		PyErr_NoMemory();
		goto error;
	}
	self->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (self->wake_fd < 0) {
		PyErr_SetFromErrno(PyExc_OSError);
		goto error;
	}
	self->closed = false;
	return (PyObject *)self;
error:
	if (self->shared) {
		iox_group_unregister(self->shared, self->ring->uring.ring_fd);
		iox_group_unref(self->shared);
	}
	iox_slab_pool_clear(&self->slabs);
	iox_ring_close(self->ring);
	self->ring = NULL;
	Py_DECREF(self);
	return NULL;
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

/* For the watchdog: which tick's callbacks run now; None while waiting for the next one. */
static PyObject *driver_get_tick(Driver *self, void *Py_UNUSED(closure))
{
	if (self->waiting)
		Py_RETURN_NONE;
	return PyLong_FromUnsignedLongLong(self->counters.enters);
}

static PyObject *driver_get_enters(Driver *self, void *Py_UNUSED(closure))
{
	return PyLong_FromUnsignedLongLong(self->counters.enters);
}

static PyObject *driver_get_loop(Driver *self, void *Py_UNUSED(closure))
{
	return Py_NewRef(self->loop ? self->loop : Py_None);
}

PyDoc_STRVAR(driver_generation_doc,
"For tests: the generation that was given out last; 24 bits, then from 1 again.");

static PyObject *driver_get_generation(Driver *self, void *Py_UNUSED(closure))
{
	return PyLong_FromUnsignedLong(self->generation);
}

static int driver_set_generation(Driver *self, PyObject *value, void *Py_UNUSED(closure))
{
	unsigned long generation = value ? PyLong_AsUnsignedLong(value) : 0;

	if (PyErr_Occurred() || check_owner(self) < 0)
		return -1;
	self->generation = (uint32_t)generation & IOX_GENERATION_MASK;
	return 0;
}

static PyMethodDef driver_methods[] = {
	{ "attach", (PyCFunction)(void *)driver_attach, METH_VARARGS | METH_KEYWORDS, NULL },
	{ "continue_by", (PyCFunction)driver_continue_by, METH_VARARGS, driver_continue_doc },
	{ "wait", (PyCFunction)driver_wait, METH_O, driver_wait_doc },
	{ "dispatch", (PyCFunction)driver_dispatch, METH_NOARGS, driver_dispatch_doc },
	{ "_feed", (PyCFunction)driver_feed, METH_O, driver_feed_doc },
	{ "listen", (PyCFunction)(void *)driver_listen, METH_FASTCALL, driver_listen_doc },
	{ "unlisten", (PyCFunction)(void *)driver_unlisten, METH_FASTCALL, driver_unlisten_doc },
	{ "_adopt", (PyCFunction)driver_adopt, METH_O, driver_adopt_doc },
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
	{ "tick", (getter)driver_get_tick, NULL, NULL, NULL },
	{ "enters", (getter)driver_get_enters, NULL, NULL, NULL },
	{ "_generation", (getter)driver_get_generation, (setter)driver_set_generation,
	  driver_generation_doc, NULL },
	{ NULL },
};

PyTypeObject iox_DriverType = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "ioxide._ring._core.Driver",
	.tp_basicsize = sizeof(Driver),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
	.tp_doc = driver_doc,
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
