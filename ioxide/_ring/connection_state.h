/* SPDX-License-Identifier: MIT */
/* One connection: what its halves, its face and its life keep of it. */
#ifndef IOX_CONNECTION_STATE_H
#define IOX_CONNECTION_STATE_H

#include "interpreter.h"

#include "group.h"
#include "list.h"
#include "memory.h"
#include "receive_state.h"

struct Driver;
struct Waiter;

/* Why a connection ended; what happened first counts. */
enum iox_cause {
	IOX_CAUSE_NONE,
	IOX_CAUSE_EOF,
	IOX_CAUSE_ERROR,
	IOX_CAUSE_READ_TIMEOUT,
	IOX_CAUSE_SEND_TIMEOUT,
	IOX_CAUSE_FAULT,
	IOX_CAUSE_ABORT,
	IOX_CAUSE_STOP,
};

/* What a connection still has to submit; a set bit keeps it in driver->staged. */
#define IOX_WANT_RECV   0x1
#define IOX_WANT_CANCEL 0x2 /* of the armed receive */
#define IOX_WANT_SEND   0x4
#define IOX_WANT_CANCEL_SEND 0x8
#define IOX_WANT_PLAIN_SEND  0x10 /* with WANT_SEND: not as SEND_ZC */

typedef struct Connection {
	PyObject_HEAD
	struct Driver *driver; /* strong */
	uint32_t slot, generation;
	int fd;

	/* Receive */
	struct iox_group *group;  /* the driver's, or in incremental mode our own; NULL at the end */
	struct iox_chunk *chunks, inline_chunks[IOX_INLINE_CHUNKS];
	uint32_t chunk_head, chunk_count, chunk_capacity;
	size_t queued_bytes;      /* in these runs */
	bool recv_armed, recv_cancelling, recv_paused;
	bool recv_starved;        /* incremental: parked until a buffer of our own group is free */
	bool at_eof;
	int recv_errno;
	const char *abort_reason; /* a literal; with recv_errno ECONNABORTED */
	struct Waiter *reader;           /* strong, from parking until its task is resumed */
	bool recv_held;           /* a transport that does not read, or not yet: not armed */

	/* Send: `staging` takes writes while `sending` belongs to the kernel */
	struct iox_batch staging, sending;
	size_t sent;              /* bytes of `sending` the kernel has taken */
	struct iox_batch notified; /* sent by SEND_ZC, ours again with its notification */
	bool notification_due;
	bool send_zc;             /* the SEND in flight, or the last one, is a SEND_ZC */
	uint64_t bytes_written, bytes_acked;
	size_t foreign_bytes;     /* written by other threads and not staged yet */
	uint64_t bytes_dropped;   /* of these, come too late for the connection */
	struct iox_node flushes;
	bool send_armed;
	int send_errno;
	bool eof_wanted, eof_sent; /* write_eof(): FIN after what is staged, reading goes on */

	/* The other face: an asyncio transport instead of a handler; see face.c */
	struct Waiter *face;             /* strong; called for whatever happens to the connection */
	bool face_reads;          /* it takes received bytes now */
	uint64_t face_acked;      /* it wants to hear when so many bytes were sent */

	/* Life */
	unsigned kernel_refs;     /* operations whose terminal completion is still to come */
	uint8_t want;
	bool nonblock;            /* other holders of the file know it as O_NONBLOCK: set at the end */
	bool served;              /* a handler's: clocks, write_limit and max_connections hold */
	PyObject *on_start;       /* whom it is handed to, once, if not to the driver's on_connection */
	bool reads_ended, closing, fin_sent, aborted;
	bool ending;              /* another thread has queued its close or abort */
	bool bounded;             /* after our FIN: the kernel drops what the peer does not take */
	uint8_t cause;            /* enum iox_cause */
	struct iox_node starting; /* in driver->starting, or in driver->over */
	struct iox_node staged, starved, read_clock, send_clock;
	uint64_t read_deadline, send_deadline; /* ms */

	PyObject *weakrefs;
} Connection;

/* What happened first counts. */
static inline void iox_conn_blame(Connection *conn, enum iox_cause cause)
{
	if (conn->cause == IOX_CAUSE_NONE)
		conn->cause = cause;
}

#endif
