/* SPDX-License-Identifier: MIT */
#include "clocks.h"

#include "clock.h"
#include "driver_state.h"

/* Without a read clock, how long a peer may ignore our FIN, in ms. */
#define LINGER_LIMIT 60000

uint64_t iox_recv_fin_timeout(const Connection *conn)
{
	return conn->driver->settings.read_timeout_ms ? conn->driver->settings.read_timeout_ms : LINGER_LIMIT;
}

void iox_recv_start_clock(Connection *conn)
{
	Driver *driver = conn->driver;
	/* All clocks in the list have one length, so the list is in order of deadline. */
	uint64_t timeout = conn->life.fin_sent ? iox_recv_fin_timeout(conn)
			   : conn->for_handler ? driver->settings.read_timeout_ms : 0;

	iox_list_remove(&conn->receive.clock);
	if (!timeout)
		return;
	/* Not driver->now: the step before this wait may have taken long. */
	conn->receive.deadline = iox_clock_coarse_ms() + timeout;
	iox_list_append(&driver->read_clocks, &conn->receive.clock);
}
