/* SPDX-License-Identifier: MIT */
/* The state of one connection: receiving half, sending half, face and life. */
#ifndef IOX_CONNECTION_STATE_H
#define IOX_CONNECTION_STATE_H

#include "interpreter.h"

#include "group.h"
#include "list.h"
#include "memory.h"
#include "states.h"

struct Driver;
struct Waiter;

/* Why a connection ended; the first cause counts. */
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
#define IOX_WANT_WAITING_SEND 0x20 /* with WANT_SEND: one that waits for room in the socket's buffer */

/*
 * A run of received bytes: in one buffer of the connection's group, on which it holds a reference, or
 * copied out of such buffers into memory of its own.
 */
struct iox_chunk {
	uint32_t offset, length;
	uint16_t bid;
	char *memory; /* PyMem_RawMalloc(), offset + length bytes; NULL: in a buffer */
};

#define IOX_INLINE_CHUNKS 4

/* The receiving half. */
struct iox_receive {
	enum iox_receive_state state;
	bool paused;              /* the queue was full, or buffers are short: not armed before it is empty */
	bool held;                /* the transport does not read now: not armed */
	bool ended;               /* reading is over, as if the peer had sent FIN */
	bool at_eof;
	int error;                /* an errno, or 0 */
	struct iox_group *group;  /* the driver's, or in incremental mode our own; NULL at the end */
	struct iox_chunk *chunks, inline_chunks[IOX_INLINE_CHUNKS];
	uint32_t chunk_head, chunk_count, chunk_capacity;
	size_t queued_bytes;      /* in these runs */
	struct Waiter *reader;    /* strong, from parking until its task is resumed */
	struct iox_node starved;  /* in driver->starved, in state starved of a shared group */
	struct iox_node clock;    /* in driver->read_clocks */
	struct iox_node watched;  /* in driver->watched, see iox_recv_watch() */
	uint8_t tries;            /* how many times it may be armed again at an urgent mark */
	uint8_t checks;           /* how many times after an interrupted enter */
	uint64_t deadline;        /* ms */
};

/* The sending half: `staging` takes writes while `sending` belongs to the kernel. */
struct iox_send {
	struct iox_batch staging, sending;
	size_t sent;               /* bytes of `sending` the kernel has taken */
	struct iox_batch notified; /* sent by SEND_ZC; the kernel reads it until the notification */
	bool notification_due;
	bool armed;
	bool zero_copy;            /* the SEND in flight, or the last one, is a SEND_ZC */
	struct iox_node silent;    /* in driver->silent, while a SEND is in flight that completes only on failure */
	unsigned silent_end;       /* tail of the submission queue behind that SEND */
	bool eof_wanted, eof_sent; /* write_eof(): FIN after what is staged, reading goes on */
	int error;                 /* an errno, or 0 */
	uint64_t bytes_written, bytes_acked;
	size_t foreign_bytes;      /* written by other threads and not staged yet */
	uint64_t bytes_dropped;    /* of these, not staged: the connection had ended */
	struct iox_node flushes;   /* Waiters */
	struct iox_node clock;     /* in driver->send_clocks */
	uint64_t deadline;         /* ms */
};

/* The face of an asyncio transport, instead of a handler; see face.c. */
struct iox_face {
	struct Waiter *waiter;    /* strong; called for whatever happens to the connection */
	PyObject *data_received;  /* of its protocol, called with bytes instead; NULL: a buffered protocol */
	bool taken;               /* a transport has it, or has given it up: its end is not the core's affair */
	bool reads;               /* it takes received bytes now */
	bool told;                /* something other than bytes has happened: the callback is due */
	uint64_t acked;           /* the callback is due when bytes_acked has reached this; UINT64_MAX: never */
	bool writes;              /* write() takes bytes in C, without the transport's Python code */
	size_t high;              /* the transport is told when more bytes than this wait to be sent */
};

struct iox_life {
	enum iox_life_state state;
	unsigned kernel_refs;     /* operations whose terminal completion is still to come */
	uint8_t want;             /* what is to be submitted */
	uint8_t retry;            /* what is submitted again when the kernel has memory: see retry.c */
	uint8_t cause;            /* enum iox_cause */
	bool fin_sent;            /* closing: all is sent, and the peer's FIN is waited for */
	bool ending;              /* another thread has queued close() or abort() */
	bool user_timeout_set;    /* TCP_USER_TIMEOUT is set: see set_user_timeout() in life.c */
	const char *abort_reason; /* a literal; with the error ECONNABORTED */
	struct iox_node staged;   /* in driver->staged, while something is wanted */
	struct iox_node retrying; /* in driver->retrying */
};

typedef struct Connection {
	PyObject_HEAD
	struct Driver *driver;    /* strong */
	uint32_t slot, generation;
	int fd;
	bool nonblock;            /* O_NONBLOCK was cleared, and is set again at the end */
	bool for_handler;         /* not a transport's: clocks, write_limit and max_connections apply */
	PyObject *on_start;       /* called with it once, instead of the driver's on_connection; or NULL */
	struct iox_node starting; /* in driver->starting, or in driver->ended */
	struct iox_receive receive;
	struct iox_send send;
	struct iox_face face;
	struct iox_life life;
	PyObject *weakrefs;
} Connection;

/* Aborted or gone: nothing more is sent, received or waited for. */
static inline bool iox_conn_over(const Connection *conn)
{
	return conn->life.state >= IOX_LIFE_ABORTED;
}

/* A completion of the receive is still to come. */
static inline bool iox_recv_in_kernel(const Connection *conn)
{
	return conn->receive.state == IOX_RECEIVE_ARMED || conn->receive.state == IOX_RECEIVE_CANCELLING;
}

static inline void iox_life_set(Connection *conn, enum iox_life_state next)
{
	iox_life_check(conn->life.state, next);
	conn->life.state = next;
}

static inline void iox_receive_set(Connection *conn, enum iox_receive_state next)
{
	iox_receive_check(conn->receive.state, next);
	conn->receive.state = next;
}

/* Sets the cause, unless there is one: the first counts. */
static inline void iox_conn_set_cause(Connection *conn, enum iox_cause cause)
{
	if (conn->life.cause == IOX_CAUSE_NONE)
		conn->life.cause = cause;
}

#endif
