/* SPDX-License-Identifier: MIT */
/* The end of a driver's ring, as far as the kernel is concerned. */
#include "drain.h"

#include "clock.h"
#include "face.h"
#include "life.h"
#include "rest.h"
#include "send.h"
#include "submit.h"
#include "tick.h"

/* How long close() waits for the kernel to end what it still has, in ms. */
#define CLOSE_LIMIT 5000

/* Enters for what is still to be submitted: each goes on where the kernel took a part. */
#define SUBMIT_ROUNDS 64

/* Of that, how long for what was sent without a copy and is not acknowledged yet, in ms. */
#define LENT_LIMIT 2000

/* Handlers, whose time is up, and connections that nobody has seen are reset. */
static void abort_handlers(Driver *self)
{
	for (uint32_t slot = 0; slot < self->slot_count; slot++) {
		Connection *conn = self->slots[slot];

		if (conn && (conn->served || iox_list_linked(&conn->starting)))
			iox_conn_abort(conn, IOX_CAUSE_STOP, "the reactor was stopped");
	}
}

/*
 * asyncio's write() sends at once what the kernel takes; ours with the next tick.  Here is none any more,
 * so what was written is submitted once.  What the kernel does not take now is cut off.
 */
static void submit_written(Driver *self)
{
	for (int round = 0; round < SUBMIT_ROUNDS; round++) {
		self->rest_until = 0; /* there is no time left for a rest */
		iox_rest_end(self);
		if (!iox_list_linked(&self->staged))
			return;
		iox_tick_stage(self);
		if (iox_tick_enter(self, false, false, -1) < 0)
			return;
		iox_tick_reap(self);
	}
}

/* Whole streams end as asyncio's do when their sockets are closed, others with a reset. */
static void end_all(Driver *self, bool wait)
{
	abort_handlers(self);
	for (uint32_t slot = 0; slot < self->slot_count; slot++) {
		Connection *conn = self->slots[slot];

		if (!conn || iox_conn_over(conn) || (wait && iox_send_lent(conn) && !iox_face_cut_off(conn)))
			continue;
		iox_conn_abort(conn, IOX_CAUSE_STOP,
			       iox_face_cut_off(conn) || iox_send_lent(conn) ? "the loop was closed" : NULL);
	}
}

/* What is not a connection's, too: accepts, the wake-up read, the poll. */
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
 * Ends everything the kernel still has: after this no slab or buffer of ours is in anyone's hands.
 * False when it did not let go in time; the memory must then be left alone for ever.
 */
bool iox_driver_drain(Driver *self)
{
	uint64_t began = iox_clock_ms(), deadline = began + CLOSE_LIMIT;
	bool asked = false;

	self->accepting = false;
	self->no_silent = true;
	self->poll_enabled = false;
	/* An exception may have left the last wait before its batch: what was sent by it is not cut off. */
	iox_tick_reap(self);
	abort_handlers(self);
	submit_written(self);
	end_all(self, true);
	iox_tick_stage(self);
	for (;;) {
		uint64_t now = iox_clock_ms(), until = now < began + LENT_LIMIT ? began + LENT_LIMIT : deadline;

		if (!asked)
			asked = cancel_all(self);
		if (!self->connection_count && !self->listeners_armed && !self->wake_armed &&
		    !self->poll_armed)
			return true;
		if (now >= deadline || iox_tick_enter(self, true, true, (int64_t)(until - now) * 1000000) < 0)
			return false;
		iox_tick_reap(self);
		end_all(self, iox_clock_ms() < began + LENT_LIMIT);
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
