/* SPDX-License-Identifier: MIT */
/*
 * Keeps some of the shared receive buffers free.
 *
 * A run holds a whole buffer until it is read, however short it is.  So when no more than an eighth of the
 * shared group is free (its reserve), runs that are unread at the end of a tick are copied into memory of
 * their own, and their connections receive nothing more before their queues are empty.  The buffer of a slice
 * cannot be copied, because there are views of it; so at most three quarters of the buffers are given to
 * slices, and further slices are copies.  A group of fewer than eight buffers has no reserve: there, runs are
 * copied when another connection waits for a buffer.
 */
#include "reserve.h"

#include "life.h"
#include "receive.h"

/* Only this connection waits for a buffer, so copying its own runs helps nobody else. */
static bool starves_alone(const Driver *self, const Connection *conn)
{
	return self->starved.next == &conn->receive.starved && self->starved.prev == &conn->receive.starved;
}

/* Copies the unread runs of one connection after the other until enough buffers are free; copies take time. */
static void copy_unread(Driver *self)
{
	struct iox_group *group = self->shared;
	uint32_t enough = 2 * iox_group_reserve(group) + 1;

	for (uint32_t left = self->slot_count; left && iox_group_free(group) < enough; left--) {
		Connection *conn;

		if (++self->copied_slot >= self->slot_count)
			self->copied_slot = 0;
		conn = self->slots[self->copied_slot];
		if (conn && conn->receive.chunk_count && !iox_conn_over(conn) && !starves_alone(self, conn) &&
		    !iox_recv_copy_out(conn))
			iox_conn_abort(conn, IOX_CAUSE_ERROR,
				       "no memory to copy unread bytes out of the shared receive buffers");
	}
}

void iox_driver_provide(Driver *self)
{
	struct iox_group *group = self->shared;
	uint32_t reserve;

	if (!group)
		return;
	reserve = iox_group_reserve(group);
	if (iox_group_free(group) <= reserve && group->held > group->in_slices &&
	    (reserve || iox_list_linked(&self->starved)))
		copy_unread(self);
	iox_group_refill(group);
}
