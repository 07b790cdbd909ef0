/* SPDX-License-Identifier: MIT */
/*
 * Whose turn a shared buffer is.
 *
 * A run holds a whole buffer, whatever it is short of, for as long as nobody reads it.  So when of the
 * shared group no more than an eighth is free (its reserve), runs that are unread when a tick ends are
 * copied into memory of their own, and their connections receive nothing more before they are empty.
 * A slice cannot be copied, because views of it are out: at most three quarters of the buffers are
 * lent, and what is lent beyond that is a copy.  A group of fewer than eight buffers has no reserve:
 * there, runs are copied when another connection waits for a buffer.
 */
#include "reserve.h"

#include "life.h"
#include "receive.h"

/* Nobody but this connection waits for a buffer, and it has only itself to wait for. */
static bool starves_alone(const Driver *self, const Connection *conn)
{
	return self->starved.next == &conn->receive.starved && self->starved.prev == &conn->receive.starved;
}

/* Connections take turns, and each tick frees what is wanted and no more: to copy takes time. */
static void vacate(Driver *self)
{
	struct iox_group *group = self->shared;
	uint32_t enough = 2 * iox_group_reserve(group) + 1;

	for (uint32_t left = self->slot_count; left && iox_group_free(group) < enough; left--) {
		Connection *conn;

		if (++self->vacated >= self->slot_count)
			self->vacated = 0;
		conn = self->slots[self->vacated];
		if (conn && conn->receive.chunk_count && !iox_conn_over(conn) && !starves_alone(self, conn) &&
		    !iox_recv_vacate(conn))
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
	if (iox_group_free(group) <= reserve && group->held > group->lent &&
	    (reserve || iox_list_linked(&self->starved)))
		vacate(self);
	iox_group_refill(group);
}
