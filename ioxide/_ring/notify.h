/* SPDX-License-Identifier: MIT */
/* Who is told when something happens to a connection: its reader, and its face. */
#ifndef IOX_NOTIFY_H
#define IOX_NOTIFY_H

#include "connection_state.h"
#include "waiter.h"

static inline void iox_face_wake(Connection *conn)
{
	if (conn->face)
		iox_waiter_wake(conn->face);
}

static inline void iox_face_received(Connection *conn)
{
	if (conn->face_reads)
		iox_waiter_wake(conn->face);
}

static inline void iox_face_sent(Connection *conn)
{
	if (conn->bytes_acked < conn->face_acked)
		return;
	conn->face_acked = UINT64_MAX;
	iox_waiter_wake(conn->face);
}

static inline void iox_recv_wake(Connection *conn)
{
	if (conn->face)
		iox_face_received(conn);
	if (!conn->reader)
		return;
	/* Its clock stops here: clocks are looked at between this and the task's step. */
	if (!conn->fin_sent)
		iox_list_remove(&conn->read_clock);
	iox_waiter_wake(conn->reader);
}

#endif
