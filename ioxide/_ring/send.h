/* SPDX-License-Identifier: MIT */
/* The sending half of a connection. */
#ifndef IOX_SEND_H
#define IOX_SEND_H

#include "connection_state.h"

/* What a completion means for the life of the connection (life.c). */
enum iox_send_report {
	IOX_SEND_GOES_ON,
	IOX_SEND_PEER_TIMED_OUT, /* TCP_USER_TIMEOUT has ended the connection after our FIN */
};

size_t iox_send_unsent(const Connection *conn);
/* Bytes of a SEND without a completion that the kernel has taken, before it is settled; 0 where none are. */
size_t iox_send_taken(const Connection *conn);
/* A SEND_ZC was submitted and the kernel still reads its memory. */
bool iox_send_zero_copy_pending(const Connection *conn);
uint64_t iox_send_target(const Connection *conn); /* bytes_acked when all that is written now was sent */
bool iox_send_pending(const Connection *conn, uint64_t target); /* bytes_acked may still reach it */
int iox_send_check(Connection *conn, size_t length); /* -1 with an exception: these bytes cannot be written */
/*
 * From this size on, exact bytes and views of them are sent without a copy: the copy would cost more than the
 * message and the segment that replace it (measured, see docs/architecture.md).
 */
#define IOX_HOLD_FROM ((size_t)32 * 1024)
bool iox_send_stage(Connection *conn, const void *data, size_t length); /* false: no memory */
/* The same without a copy: the bytes lie in an exact bytes object, to which it takes a reference. */
bool iox_send_hold(Connection *conn, const void *data, size_t length, PyObject *bytes);
/* Keeps the memory of sends in flight for ever: no completion will tell when the kernel is done with it. */
void iox_send_leak(Connection *conn);
PyObject *iox_send_write(Connection *conn, PyObject *data); /* on the reactor's thread */
int iox_send_flush_state(Connection *conn, uint64_t target);
void iox_send_wake(Connection *conn, bool all);
void iox_send_drop(Connection *conn);
void iox_send_now(Connection *conn); /* by send(2), what is staged, when nothing is in flight */
bool iox_send_submit(Connection *conn);
enum iox_send_report iox_send_complete(Connection *conn, int res, unsigned flags);

#endif
