/* SPDX-License-Identifier: MIT */
/*
 * A kernel that is short of memory fails the operations that it has none for (io_msg_alloc_async() of
 * io_uring/net.c, 6.1 to 7.3), and that passes.  Submitted again at once they would fail at once, and the
 * reactor would burn the processor that is to give memory back; so they rest first, all of them together.
 */
#include "rest.h"

#include "submit.h"

/* ms */
#define REST 10

void iox_rest(Connection *conn, uint8_t want)
{
	Driver *driver = conn->driver;

	driver->counters.memory_rests++;
	conn->life.rest |= want;
	if (iox_list_linked(&conn->life.resting))
		return;
	if (!iox_list_linked(&driver->resting))
		driver->rest_until = driver->now + REST;
	iox_list_append(&driver->resting, &conn->life.resting);
}

void iox_rest_leave(Connection *conn)
{
	conn->life.rest = 0;
	iox_list_remove(&conn->life.resting);
}

uint64_t iox_rest_until(const Driver *driver)
{
	return iox_list_linked(&driver->resting) ? driver->rest_until : UINT64_MAX;
}

void iox_rest_end(Driver *driver)
{
	if (driver->rest_until > driver->now)
		return;
	while (iox_list_linked(&driver->resting)) {
		Connection *conn = IOX_ENTRY(driver->resting.next, Connection, life.resting);
		uint8_t want = conn->life.rest;

		iox_rest_leave(conn);
		iox_want(conn, want);
	}
}
