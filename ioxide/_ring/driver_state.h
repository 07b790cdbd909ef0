/* SPDX-License-Identifier: MIT */
/* The state of a driver, the owner of one ring. */
#ifndef IOX_DRIVER_STATE_H
#define IOX_DRIVER_STATE_H

#include "interpreter.h"

#include "group.h"
#include "home_state.h"
#include "list.h"
#include "listener_state.h"
#include "mailbox.h"
#include "memory.h"
#include "ring.h"
#include "settings.h"
#include "tally.h"

struct Connection;

/* The id of the shared group; those of connections (incremental mode) begin after it. */
#define IOX_SHARED_GROUP 1
#define IOX_FIRST_GROUP  2

typedef struct Driver {
	PyObject_HEAD
	iox_ring *ring;
	uint64_t owner;           /* iox_thread_number() of the thread that made it, which alone may use it */
	unsigned long thread;     /* its ident, for messages */
	unsigned forks;           /* iox_forks when it was made */
	struct iox_home home;     /* of the tasks that are no worker's */
	PyObject *on_connection, *on_fault;
	PyTypeObject *connection_type;

	struct iox_settings settings;
	bool zero_copy_report;    /* IORING_SEND_ZC_REPORT_USAGE (6.2), until the kernel refuses it */

	struct Connection **slots;
	uint32_t *free_slots;
	uint32_t slot_count, free_count, connection_count, generation;
	uint32_t handler_connections; /* of the connections, handlers': max_connections limits these */

	struct iox_node next;     /* standing Waiters to be called again with the next tick */
	struct iox_node starting; /* Connections to hand to on_connection */
	struct iox_node ended;    /* Connections that have ended, each with the table's reference */
	struct iox_node staged;   /* Connections with something to submit */
	struct iox_node starved;  /* shared: Connections parked without a buffer, oldest first */
	struct iox_node watched;  /* Connections whose receive may sleep at an urgent mark */
	uint64_t marks_at;        /* ms; when all receives are checked for one; 0: an enter has to be interrupted */
	uint64_t marks_checked;   /* ms; when that was done last */
	struct iox_node retrying; /* Connections with an operation that the kernel had no memory for */
	uint64_t retry_at;        /* ms; when these are submitted again */
	struct iox_node silent;   /* Connections with a SEND that completes only on failure, in order of submission */
	bool no_silent;           /* each SEND has to complete, because the ring ends */
	struct iox_node read_clocks, send_clocks; /* soonest deadline first */
	uint64_t now;             /* ms, read once a batch */

	struct iox_listener listeners[IOX_MAX_LISTENERS];
	unsigned listener_slots;  /* of them, those that were ever used; each tick looks only at these */
	unsigned listeners_armed;
	bool accepting;
	bool accepts_failed;      /* a listener has an error to report */

	struct iox_group *shared; /* NULL in incremental mode */
	uint32_t copied_slot;     /* slot of the connection whose runs were copied out last */
	size_t copied_bytes;      /* memory of runs that were copied out */
	uint64_t trim_at;         /* ms; when unused memory is given back; 0: there is none */
	uint16_t *free_groups;    /* ids */
	uint32_t free_group_count;
	struct iox_mailbox foreign; /* from other threads */
	uint32_t slices_out;

	int wake_fd;
	uint64_t wake_value;
	int wake_pending;         /* atomic: a wake is written and not yet read */
	bool wake_armed;
	bool woken_locally;       /* wake() was called on the reactor's own thread */
	uint64_t sleeping_until;  /* ms; 0: not in wait(), UINT64_MAX: until something completes */
	uint32_t drops_told;      /* dropped completions that wait() has raised for */

	struct iox_modes modes;   /* see modes.h */

	int poll_fd;              /* the loop's epoll instance, or -1 */
	bool poll_armed, poll_ready, poll_enabled;

	struct iox_slab_pool slabs;
	struct iox_counters counters;
	bool running;             /* between begin_run() and end_run() */
	bool waiting;             /* in io_uring_enter(2), without the GIL */
	const char *inside;       /* which of wait(), dispatch(), its halves and close() runs, or NULL */
	bool closed;
} Driver;

#endif
