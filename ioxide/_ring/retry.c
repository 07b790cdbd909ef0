/* SPDX-License-Identifier: MIT */
/*
 * A kernel that is short of memory fails operations (io_msg_alloc_async() of io_uring/net.c, 6.1 to 7.3).  The
 * shortage passes.  Submitted again at once they would fail again, and the reactor would use the processor time
 * that the kernel needs to free memory.  So all of them together are submitted again after a delay.
 */
#include "retry.h"

#include "submit.h"

/* ms */
#define DELAY 10

void iox_retry_later(Connection *conn, uint8_t want)
{
	Driver *driver = conn->driver;

	driver->counters.memory_rests++;
	conn->life.retry |= want;
	if (iox_list_linked(&conn->life.retrying))
		return;
	if (!iox_list_linked(&driver->retrying))
		driver->retry_at = driver->now + DELAY;
	iox_list_append(&driver->retrying, &conn->life.retrying);
}

void iox_retry_forget(Connection *conn)
{
	conn->life.retry = 0;
	iox_list_remove(&conn->life.retrying);
}

uint64_t iox_retry_at(const Driver *driver)
{
	return iox_list_linked(&driver->retrying) ? driver->retry_at : UINT64_MAX;
}

void iox_retry_due(Driver *driver)
{
	if (driver->retry_at > driver->now)
		return;
	while (iox_list_linked(&driver->retrying)) {
		Connection *conn = IOX_ENTRY(driver->retrying.next, Connection, life.retrying);
		uint8_t want = conn->life.retry;

		iox_retry_forget(conn);
		iox_want(conn, want);
	}
}
