/* SPDX-License-Identifier: MIT */
/* The end of a driver's ring, as far as the kernel is concerned. */
#include "internal.h"

/* How long close() waits for the kernel to end what it still has, in ms. */
#define CLOSE_LIMIT 5000

static void abort_all(Driver *self)
{
	for (uint32_t slot = 0; slot < self->slot_count; slot++)
		if (self->slots[slot])
			iox_conn_abort(self->slots[slot], IOX_CAUSE_STOP, "the reactor was stopped");
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
	uint64_t deadline = iox_clock_ms() + CLOSE_LIMIT;
	bool asked = false;

	self->accepting = false;
	self->poll_enabled = false;
	abort_all(self);
	iox_tick_stage(self);
	for (;;) {
		uint64_t now = iox_clock_ms();

		if (!asked)
			asked = cancel_all(self);
		if (!self->connection_count && !self->listeners_armed && !self->wake_armed &&
		    !self->poll_armed)
			return true;
		if (now >= deadline ||
		    iox_tick_enter(self, true, true, (int64_t)(deadline - now) * 1000000) < 0)
			return false;
		iox_tick_reap(self);
		while (iox_list_linked(&self->starting))
			iox_list_remove(self->starting.next);
		abort_all(self);
		while (iox_list_linked(&self->staged)) {
			Connection *conn = IOX_ENTRY(self->staged.next, Connection, staged);

			if (!iox_conn_submit(conn))
				break;
			iox_list_remove(&conn->staged);
		}
	}
}
