/* SPDX-License-Identifier: MIT */
/* Where parked tasks go on: on the reactor, or on a worker (the pool modes); and what the modes keep. */
#ifndef IOX_HOME_STATE_H
#define IOX_HOME_STATE_H

#include "interpreter.h"
#include "list.h"

struct Driver;

/* One of the driver and one of each worker. */
struct iox_home {
	struct iox_node ready;  /* Waiters whose task is to be resumed, each with a reference */
	PyObject *loop;         /* asyncio's; NULL before attach(), and once a worker has ended */
	struct Driver *driver;  /* borrowed */
	PyObject *worker;       /* the Worker whose home this is, borrowed; NULL: the reactor's */
	struct iox_node notify; /* a worker's: in the driver's list of workers to notify */
	bool scheduled;         /* a worker's: its loop will call run_ready() */
};

/* A driver's modes that are not inline; for modes.h and homes.h alone. */
struct iox_modes {
	PyObject *on_resume;       /* posted: called with what resumes a task; NULL in the other modes */
	bool wake_each;            /* pool: every call of another thread writes a wake of its own */
	unsigned workers;          /* pool, pool_coalesced: threads on which handlers run */
	struct iox_node to_notify; /* homes of the workers that have to be notified */
};

#endif
