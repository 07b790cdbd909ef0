/* SPDX-License-Identifier: MIT */
/* A connection's life: what it submits, what completions change, and its end. */
#ifndef IOX_LIFE_H
#define IOX_LIFE_H

#include "connection_state.h"

bool iox_conn_submit(Connection *conn); /* false: the submission queue is full */
/* Completions of its receive and of its sends. */
void iox_conn_received(Connection *conn, int res, unsigned flags);
void iox_conn_sent(Connection *conn, int res, unsigned flags);
void iox_conn_progress(Connection *conn);
void iox_conn_close(Connection *conn);
/* reason NULL: the stream was whole */
void iox_conn_abort(Connection *conn, enum iox_cause cause, const char *reason);

#endif
