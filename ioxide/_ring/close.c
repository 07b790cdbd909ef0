/* SPDX-License-Identifier: MIT */
/*
 * The end of a driver: on its ring's thread, and on another or in a forked child.
 *
 * Only the ring's own thread may enter it (IORING_SETUP_SINGLE_ISSUER, 6.0: -EEXIST), so elsewhere nothing
 * can be cancelled and waited for (quiesce.c).  The kernel cancels what is left when the ring's descriptor is
 * closed, some time later.  It touches no memory of ours meanwhile: under DEFER_TASKRUN (6.1) an operation
 * goes on only while the ring's thread is inside io_uring_enter(2) for it, and that never happens again.
 */
#include "close.h"

#include "dispatch.h"
#include "quiesce.h"
#include "life.h"
#include "listeners.h"
#include "modes.h"
#include "owner.h"
#include "send.h"
#include "tick.h"
#include "waiter.h"

#include <unistd.h>

/* Nothing completes any more.  The tasks have ended; the futures of other threads get their result here. */
static void resolve_futures(Driver *self)
{
	iox_driver_take_next(self);
	while (iox_list_linked(&self->home.ready)) {
		Waiter *waiter = IOX_ENTRY(self->home.ready.next, Waiter, ready);

		iox_list_remove(&waiter->ready);
		if (waiter->resolves_future && iox_waiter_resume(waiter) < 0)
			PyErr_WriteUnraisable((PyObject *)waiter);
		waiter->state = IOX_WAITER_DONE;
		Py_DECREF(waiter);
	}
}

/* Does what the terminal completions of all its operations would do: none of them will come. */
static void end_connection(Driver *self, Connection *conn)
{
	Py_INCREF(conn);
	iox_conn_abort(conn, IOX_CAUSE_STOP,
		       iox_send_unsent(conn) || iox_send_zero_copy_pending(conn) ? "the loop was closed" : NULL);
	iox_send_leak(conn);
	conn->life.kernel_refs = 0;
	if (iox_recv_in_kernel(conn))
		iox_receive_set(conn, IOX_RECEIVE_IDLE);
	iox_list_remove(&conn->send.silent);
	conn->send.armed = conn->send.notification_due = false;
	iox_batch_release(&self->slabs, &conn->send.notified);
	iox_conn_progress(conn);
	Py_DECREF(conn);
}

static void abandon(Driver *self)
{
	self->accepting = false;
	self->poll_enabled = false;
	/*
	 * Completions that were not taken in: accepted descriptors among them are closed.  Not in a forked
	 * child, where the queue and the descriptors in it are the parent's.
	 */
	if (self->forks == iox_forks)
		iox_tick_reap(self);
	iox_tick_complete_silent(self);
	for (uint32_t slot = 0; slot < self->slot_count; slot++)
		if (self->slots[slot])
			end_connection(self, self->slots[slot]);
	self->listeners_armed = 0;
	self->wake_armed = self->poll_armed = false;
}

/* released: the kernel has let go of all memory, which can be freed. */
static PyObject *end(Driver *self, bool released)
{
	self->closed = true;
	iox_mailbox_do(&self->foreign); /* queued while close() waited for the kernel */
	close(self->wake_fd);
	self->wake_fd = -1;
	/*
	 * Closing a ring is asynchronous.  Unregistering its buffers is not, so that comes first; their memory
	 * is freed afterwards.
	 */
	if (released && self->shared && iox_driver_is_here(self))
		iox_group_unregister(self->shared, self->ring->uring.ring_fd);
	self->counters.cqes_dropped = iox_ring_dropped(self->ring);
	iox_ring_close(self->ring, iox_driver_is_here(self));
	self->ring = NULL;
	for (uint32_t slot = 0; !released && slot < self->slot_count; slot++)
		if (self->slots[slot])
			iox_send_leak(self->slots[slot]);
	if (released) {
		if (self->shared) {
			self->shared->registered = false; /* elsewhere the ring's end takes it along */
			iox_group_unref(self->shared);
		}
		self->shared = NULL;
		iox_slab_pool_clear(&self->slabs);
	}
	iox_driver_drop_ended(self);
	resolve_futures(self);
	if (iox_modes_hand_over(self) < 0) /* tasks on workers are resumed: their connections have ended */
		PyErr_WriteUnraisable((PyObject *)self);
	Py_CLEAR(self->on_connection);
	iox_modes_clear(self);
	Py_CLEAR(self->on_fault);
	iox_listeners_clear(self);
	self->inside = NULL;
	return PyBool_FromLong(released);
}

PyObject *iox_driver_close(Driver *self, PyObject *Py_UNUSED(ignored))
{
	if (self->closed && !self->inside)
		Py_RETURN_TRUE;
	if (iox_driver_begin(self, "close()") < 0)
		return NULL;
	return end(self, iox_driver_quiesce(self));
}

PyObject *iox_driver_abandon(Driver *self, PyObject *Py_UNUSED(ignored))
{
	bool forked = self->forks != iox_forks;

	if (self->closed && !self->inside)
		Py_RETURN_TRUE;
	if (forked ? self->connection_count : self->running || self->inside) {
		if (forked)
			iox_driver_check_owner(self);
		else
			PyErr_Format(PyExc_RuntimeError, "the loop of this ring runs on thread %lu",
				     self->thread);
		return NULL;
	}
	self->inside = "abandon()";
	abandon(self);
	return end(self, true);
}
