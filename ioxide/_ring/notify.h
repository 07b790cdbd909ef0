/* SPDX-License-Identifier: MIT */
/* What a change of a connection wakes: its reader, and its face. */
#ifndef IOX_NOTIFY_H
#define IOX_NOTIFY_H

#include "connection_state.h"
#include "waiter.h"

static inline void iox_face_wake(Connection *conn)
{
	conn->face.told = true;
	if (conn->face.waiter)
		iox_waiter_wake(conn->face.waiter);
}

static inline void iox_face_received(Connection *conn)
{
	if (conn->face.reads)
		iox_waiter_wake(conn->face.waiter);
}

static inline void iox_face_sent(Connection *conn)
{
	if (conn->send.bytes_acked < conn->face.acked)
		return;
	conn->face.acked = UINT64_MAX;
	iox_face_wake(conn);
}

static inline void iox_recv_wake(Connection *conn)
{
	if (conn->face.waiter)
		iox_face_received(conn);
	if (!conn->receive.reader)
		return;
	/* The read clock stops here: clocks are checked before the task is resumed. */
	if (!conn->life.fin_sent)
		iox_list_remove(&conn->receive.clock);
	iox_waiter_wake(conn->receive.reader);
}

#endif
