/* SPDX-License-Identifier: MIT */
/* The end of a driver's ring: everything that the kernel still has is cancelled, and waited for. */
#include "quiesce.h"

#include "clock.h"
#include "face.h"
#include "life.h"
#include "retry.h"
#include "send.h"
#include "submit.h"
#include "tick.h"

/* How long close() waits for all operations to complete, in ms. */
#define CLOSE_LIMIT 5000

/* The most enters for what is still to be submitted; the kernel may take a part at a time. */
#define SUBMIT_ROUNDS 64

/* Of that time, how long for sends without a copy that the peer has not acknowledged, in ms. */
#define ZERO_COPY_LIMIT 2000

/* Resets the connections of handlers, whose time is over, and those that were handed to nobody yet. */
static void abort_handlers(Driver *self)
{
	for (uint32_t slot = 0; slot < self->slot_count; slot++) {
		Connection *conn = self->slots[slot];

		if (conn && (conn->for_handler || iox_list_linked(&conn->starting)))
			iox_conn_abort(conn, IOX_CAUSE_STOP, "the reactor was stopped");
	}
}

/*
 * asyncio's write() sends at once; ours sends with the next tick.  There is no next tick here, so everything
 * that was written is submitted now.  What the kernel does not take at once is lost.
 */
static void submit_written(Driver *self)
{
	for (int round = 0; round < SUBMIT_ROUNDS; round++) {
		self->retry_at = 0; /* retried at once: there is no time left to wait */
		iox_retry_due(self);
		if (!iox_list_linked(&self->staged))
			return;
		iox_tick_stage(self);
		if (iox_tick_enter(self, false, false, -1) < 0)
			return;
		iox_tick_reap(self);
	}
}

/* A stream that is whole ends as asyncio's when its socket is closed; any other one with a reset. */
static void end_all(Driver *self, bool wait)
{
	abort_handlers(self);
	for (uint32_t slot = 0; slot < self->slot_count; slot++) {
		Connection *conn = self->slots[slot];

		if (!conn || iox_conn_over(conn) || (wait && iox_send_zero_copy_pending(conn) && !iox_face_cut_off(conn)))
			continue;
		iox_conn_abort(conn, IOX_CAUSE_STOP,
			       iox_face_cut_off(conn) || iox_send_zero_copy_pending(conn) ? "the loop was closed" : NULL);
	}
}

/* Everything on the ring: accepts, the wake-up read and the poll, too. */
static bool cancel_all(Driver *self)
{
	struct io_uring_sqe *sqe = iox_driver_sqe(self);

	if (!sqe)
		return false;
	io_uring_prep_cancel64(sqe, 0, IOX_ASYNC_CANCEL_ALL | IOX_ASYNC_CANCEL_ANY);
	sqe->user_data = iox_user_data(IOX_KIND_CANCEL, 0, 0);
	return true;
}

/*
 * Ends everything the kernel still has: afterwards it uses no slab or buffer of ours.  False when an operation
 * did not end in time; the memory must then stay mapped for ever.
 */
bool iox_driver_quiesce(Driver *self)
{
	uint64_t began = iox_clock_ms(), deadline = began + CLOSE_LIMIT;
	bool asked = false;

	self->accepting = false;
	self->no_silent = true;
	self->poll_enabled = false;
	/* An exception may have left wait() before its batch was taken in: what that sent is not lost. */
	iox_tick_reap(self);
	abort_handlers(self);
	submit_written(self);
	end_all(self, true);
	iox_tick_stage(self);
	for (;;) {
		uint64_t now = iox_clock_ms(), until = now < began + ZERO_COPY_LIMIT ? began + ZERO_COPY_LIMIT : deadline;

		if (!asked)
			asked = cancel_all(self);
		if (!self->connection_count && !self->listeners_armed && !self->wake_armed &&
		    !self->poll_armed)
			return true;
		if (now >= deadline || iox_tick_enter(self, true, true, (int64_t)(until - now) * 1000000) < 0)
			return false;
		iox_tick_reap(self);
		end_all(self, iox_clock_ms() < began + ZERO_COPY_LIMIT);
		while (iox_list_linked(&self->starting))
			iox_list_remove(self->starting.next);
		while (iox_list_linked(&self->staged)) {
			Connection *conn = IOX_ENTRY(self->staged.next, Connection, life.staged);

			if (!iox_conn_submit(conn))
				break;
			iox_list_remove(&conn->life.staged);
		}
	}
}
