/* SPDX-License-Identifier: MIT */
/* Submissions, and the list of connections that have some to make. */
#ifndef IOX_SUBMIT_H
#define IOX_SUBMIT_H

#include "connection_state.h"
#include "driver_state.h"

/* user_data of every submission: kind (8 bits) | generation (24) | slot (32) */
enum iox_kind {
	IOX_KIND_ACCEPT = 1,
	IOX_KIND_RECV,
	IOX_KIND_SEND,
	IOX_KIND_WAKE,
	IOX_KIND_POLL,
	IOX_KIND_CANCEL,
};

#define IOX_GENERATION_MASK 0xffffffU

static inline uint64_t iox_user_data(enum iox_kind kind, uint32_t generation, uint32_t slot)
{
	return (uint64_t)kind << 56 | (uint64_t)generation << 32 | slot;
}

struct io_uring_sqe *iox_driver_sqe(Driver *driver); /* NULL: the queue stays full */

/* The connection makes these submissions before the next enter. */
static inline void iox_want(Connection *conn, uint8_t what)
{
	conn->life.want |= what;
	if (!iox_list_linked(&conn->life.staged))
		iox_list_append(&conn->driver->staged, &conn->life.staged);
}

#endif
