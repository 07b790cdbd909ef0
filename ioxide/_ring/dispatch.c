/* SPDX-License-Identifier: MIT */
/*
 * A tick: wait(), then dispatch().
 *
 *   wait()      gives buffers back, stages what connections want to submit, one io_uring_enter(2)
 *   dispatch()  reaps the batch without running any Python code (tick.c), then resumes tasks
 *               inline, one after the other, from a queue that their own completions append to
 *
 * run_turns() is both, again and again, with the loop's callbacks in between (turns.c).
 * take_in() and resume_batch() are the two halves of dispatch(), for a loop that has callbacks to run
 * in between.
 *
 * A connection that ends while the batch is taken in is kept until the whole batch was taken in: the last
 * reference is dropped in iox_driver_drop_ended() alone, where finalizers find all queues complete.
 *
 * Tasks are resumed from that queue alone, so the stack stays flat, however long a chain of wake-ups is.
 * KeyboardInterrupt and SystemExit may leave dispatch() in the middle: the queue stays for the next tick.
 */
#include "dispatch.h"

#include "clock.h"
#include "faults.h"
#include "life.h"
#include "listeners.h"
#include "modes.h"
#include "owner.h"
#include "tick.h"
#include "waiter.h"

#include <errno.h>
#include <string.h>

/* The enter failed, or completions were lost: the ring cannot be used any more. */
static PyObject *enter_failed(Driver *self, int error)
{
	unsigned dropped = iox_ring_dropped(self->ring);
	PyObject *text, *raised;

	if (error == EBADR || dropped != self->drops_told) {
		self->drops_told = dropped; /* raised once, so that handlers can still clean up */
		error = EBADR;
		text = PyUnicode_FromFormat(
			"the kernel had no memory for the completions that did not fit into cq_entries=%u, and "
			"dropped some (%u): the results of these operations are lost, so this ring "
			"cannot be used any more. Allow the process more memory, or the ring a larger "
			"cq_entries.",
			self->ring->uring.cq.ring_entries, dropped);
	} else {
		text = PyUnicode_FromFormat(
			"io_uring_enter(2) failed: %s. That is permanent, so this ring cannot be used any more: "
			"look for what has closed its descriptor %d (os.closerange()), or forbidden the call "
			"since (seccomp(2)).",
			strerror(error), self->ring->uring.ring_fd);
	}
	raised = text ? PyObject_CallFunction(PyExc_OSError, "iN", error, text) : NULL;
	if (raised) {
		PyErr_SetObject((PyObject *)Py_TYPE(raised), raised);
		Py_DECREF(raised);
	}
	return NULL;
}

void iox_driver_drop_ended(Driver *self)
{
	iox_mailbox_drop(&self->foreign);
	while (iox_list_linked(&self->ended)) {
		Connection *conn = IOX_ENTRY(self->ended.next, Connection, starting);

		iox_list_remove(&conn->starting);
		Py_DECREF(conn);
	}
}

PyObject *iox_driver_begin_run(Driver *self, PyObject *Py_UNUSED(ignored))
{
	if (iox_driver_check_owner(self) < 0)
		return NULL;
	iox_ring_take_index(self->ring);
	self->running = true;
	Py_RETURN_NONE;
}

PyObject *iox_driver_end_run(Driver *self, PyObject *Py_UNUSED(ignored))
{
	if (!self->closed && iox_driver_is_here(self)) {
		iox_ring_drop_index(self->ring);
		self->running = false;
	}
	Py_RETURN_NONE;
}

/* Stages what there is to submit and hands over what workers wait for, before an enter. */
static int prepare_enter(Driver *self)
{
	/* Handlers have run since it was read: clocks are set and compared with the time of now. */
	self->now = iox_clock_ms();
	iox_tick_complete_silent(self); /* of the last enter, where its batch was not taken in */
	iox_tick_stage(self);
	iox_driver_drop_ended(self);
	/* Before the clocks are read: a worker may set one meanwhile. */
	return iox_modes_hand_over(self);
}

/*
 * One enter, at most `timeout_ns` long (-1: for ever).  1 when it blocked, 0 when it was not to, because
 * there is work; -1 with an exception set.
 */
static int enter_once(Driver *self, int64_t timeout_ns)
{
	int64_t clock;
	bool idle;
	int ret;

	if (prepare_enter(self) < 0)
		return -1;
	idle = timeout_ns != 0 && !iox_tick_has_work(self);
	if (!idle || iox_list_linked(&self->staged)) {
		timeout_ns = 0; /* what is staged found the submission queue full */
	} else if ((clock = iox_tick_next_clock(self)) >= 0) {
		clock = clock * 1000000;
		if (timeout_ns < 0 || clock < timeout_ns)
			timeout_ns = clock;
	}
	/*
	 * GETEVENTS also when not waiting: under DEFER_TASKRUN nothing completes unless the owner asks.
	 */
	self->sleeping_until = timeout_ns < 0 ? UINT64_MAX : self->now + (uint64_t)timeout_ns / 1000000;
	ret = iox_tick_enter(self, timeout_ns != 0, idle, timeout_ns);
	self->sleeping_until = 0;
	/*
	 * The kernel reports lost completions (EBADR) once, to any enter with GETEVENTS, and there are others
	 * than this one.  The count of lost completions stays.
	 */
	if (ret < 0 || iox_ring_dropped(self->ring) != self->drops_told) {
		self->inside = NULL;
		enter_failed(self, -ret);
		return -1;
	}
	if (PyErr_CheckSignals() < 0)
		return -1;
	return timeout_ns != 0;
}

/*
 * A SEND mostly completes within the enter that submits it.  A lone request would then cost two iterations of
 * the loop: one for that completion and one for the next request.  So wait() itself takes in a batch of
 * nothing but sends, and waits again unless that has woken a task.
 */
static int wait_past_sends(Driver *self, int64_t timeout_ns)
{
	int64_t began = timeout_ns > 0 ? iox_clock_ns() : 0, left = timeout_ns;
	int blocked;

	while ((blocked = enter_once(self, left)) > 0 && iox_tick_only_sends(self)) {
		iox_tick_reap(self);
		if (iox_tick_has_work(self))
			return 0;
		if (timeout_ns > 0) {
			left = timeout_ns - (iox_clock_ns() - began);
			if (left <= 0)
				return 0;
		}
	}
	return blocked < 0 ? -1 : 0;
}

/* `timeout` is in seconds, or None: for ever.  -1 with an exception set. */
static int wait_for(Driver *self, PyObject *timeout)
{
	int64_t timeout_ns = -1;
	int ret;

	if (timeout != Py_None) {
		double seconds = PyFloat_AsDouble(timeout);

		if (seconds == -1.0 && PyErr_Occurred())
			return -1;
		/* Rounded up, as selectors.EpollSelector does: waking early would spin. */
		timeout_ns = seconds > 1e9 ? (int64_t)1e18 : seconds > 0 ? (int64_t)(seconds * 1e9) + 1 : 0;
	}
	if (iox_driver_begin(self, "wait()") < 0)
		return -1;
	ret = wait_past_sends(self, timeout_ns);
	self->inside = NULL;
	return ret;
}

PyObject *iox_driver_wait(Driver *self, PyObject *timeout)
{
	if (wait_for(self, timeout) < 0)
		return NULL;
	Py_RETURN_NONE;
}

/* Moves the waiters that are called with the next tick to the ready queue. */
void iox_driver_take_next(Driver *self)
{
	while (iox_list_linked(&self->next)) {
		struct iox_node *node = self->next.next;

		iox_list_remove(node);
		iox_list_append(&self->home.ready, node);
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
			/* asyncio's transport outlives a connection_made() that is interrupted. */
			if (!conn->face.taken)
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

static int resume_waiters(Driver *self)
{
	while (iox_list_linked(&self->home.ready)) {
		Waiter *waiter = IOX_ENTRY(self->home.ready.next, Waiter, ready);
		int ret;

		iox_list_remove(&waiter->ready);
		if (iox_modes_posted(self) && !waiter->resolves_future && !waiter->standing)
			ret = iox_waiter_resumed(waiter, iox_modes_post(self, (PyObject *)waiter));
		else
			ret = iox_waiter_resume_reported(waiter);
		Py_DECREF(waiter);
		if (ret < 0)
			return -1;
	}
	return 0;
}

/* Checks made before a batch is taken in or its tasks are resumed; false with an exception set. */
static bool begin_batch(Driver *self, const char *what)
{
	if (!self->on_connection && !self->closed) {
		PyErr_SetString(PyExc_RuntimeError, "this driver has no loop: call attach() first");
		return false;
	}
	return iox_driver_begin(self, what) == 0;
}

static void take_in(Driver *self)
{
	self->woken_locally = false;
	iox_driver_take_next(self);
	iox_tick_reap(self);
	iox_tick_expire(self);
	iox_driver_drop_ended(self);
}

static int resume_batch(Driver *self)
{
	int ret = start_connections(self);

	if (ret == 0 && self->accepts_failed)
		ret = iox_listeners_report(self);
	if (ret == 0)
		ret = resume_waiters(self);
	return ret;
}

bool iox_driver_has_batch(const Driver *self)
{
	return iox_list_linked(&self->starting) || self->accepts_failed || iox_list_linked(&self->home.ready);
}

static PyObject *take_poll_ready(Driver *self)
{
	bool poll_ready = self->poll_ready;

	self->poll_ready = false;
	return PyBool_FromLong(poll_ready);
}

PyObject *iox_driver_dispatch(Driver *self, PyObject *Py_UNUSED(ignored))
{
	int ret;

	if (!begin_batch(self, "dispatch()"))
		return NULL;
	take_in(self);
	ret = resume_batch(self);
	self->inside = NULL;
	return ret < 0 ? NULL : take_poll_ready(self); /* what is left stays queued, poll_ready included */
}

PyObject *iox_driver_take_in(Driver *self, PyObject *Py_UNUSED(ignored))
{
	if (!begin_batch(self, "take_in()"))
		return NULL;
	take_in(self);
	self->inside = NULL;
	return take_poll_ready(self);
}

PyObject *iox_driver_resume_batch(Driver *self, PyObject *Py_UNUSED(ignored))
{
	int ret;

	if (!begin_batch(self, "resume_batch()"))
		return NULL;
	ret = resume_batch(self);
	self->inside = NULL;
	if (ret < 0)
		return NULL; /* what is left stays queued */
	Py_RETURN_NONE;
}

PyObject *iox_driver_feed(Driver *self, PyObject *batch)
{
	PyObject *list = PySequence_List(batch);

	for (Py_ssize_t i = 0; list && i < PyList_GET_SIZE(list); i++) {
		unsigned long long user_data;
		unsigned int flags;
		int res;

		/* The owner last: the others may run Python code, which may close the driver. */
		if (!PyArg_ParseTuple(PyList_GET_ITEM(list, i), "KiI", &user_data, &res, &flags) ||
		    iox_driver_check_owner(self) < 0)
			Py_CLEAR(list);
		else
			iox_tick_complete(self, user_data, res, flags);
	}
	iox_driver_drop_ended(self);
	if (!list)
		return NULL;
	Py_DECREF(list);
	Py_RETURN_NONE;
}
