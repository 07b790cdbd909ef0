/* SPDX-License-Identifier: MIT */
/* The receiving half of a connection. */
#ifndef IOX_RECEIVE_H
#define IOX_RECEIVE_H

#include "connection_state.h"
#include "waiter.h"

/* What a completion means for the life of the connection (life.c). */
enum iox_recv_report {
	IOX_RECV_GOES_ON,
	IOX_RECV_PEER_TIMED_OUT, /* TCP_USER_TIMEOUT has ended the connection after our FIN */
	IOX_RECV_IMPOSSIBLE,     /* bytes in a buffer that the kernel does not have */
	IOX_RECV_NO_MEMORY,      /* for the queue of runs */
};

int iox_recv_ready(Connection *conn); /* 1 something to return, 0 wait, -1 exception */
PyObject *iox_recv_take(Connection *conn, Py_ssize_t limit);
size_t iox_recv_copy(Connection *conn, char *to, size_t limit); /* how many bytes it copied */
PyObject *iox_recv_take_slices(Connection *conn);
void iox_recv_park(Connection *conn, Waiter *waiter, bool on_worker);
void iox_recv_discard(Connection *conn);
void iox_recv_unpause(Connection *conn); /* its queue was emptied; on the reactor */
/* Copies its runs out of shared buffers, and pauses; false, and nothing has changed: no memory. */
bool iox_recv_copy_out(Connection *conn);
void iox_recv_cancel(Connection *conn); /* the armed receive is to be cancelled */
void iox_recv_unpark(Connection *conn); /* a starved receive waits for a buffer no longer */
bool iox_recv_submit(Connection *conn);
void iox_recv_check_marks(struct Driver *driver); /* arms receives again that may sleep at an urgent mark */
void iox_recv_interrupted(struct Driver *driver); /* an enter was: all armed receives are checked soon */
void iox_recv_check_all_marks(struct Driver *driver);
enum iox_recv_report iox_recv_complete(Connection *conn, int res, unsigned flags);
void iox_recv_end(Connection *conn);   /* as if the peer had sent FIN; what is queued is delivered */
void iox_recv_close(Connection *conn); /* on close(): what is queued is thrown away */

#endif
