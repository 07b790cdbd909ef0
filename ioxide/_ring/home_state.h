/* SPDX-License-Identifier: MIT */
/* Where parked tasks go on: on the reactor, or on a worker (the pool modes); and what the modes keep. */
#ifndef IOX_HOME_STATE_H
#define IOX_HOME_STATE_H

#include "interpreter.h"
#include "list.h"

struct Driver;

/* One of the driver and one of each worker. */
struct iox_home {
	struct iox_node ready;   /* Waiters whose task is to be resumed, each with a reference */
	PyObject *loop;          /* asyncio's; NULL before attach(), and once a worker has ended */
	struct Driver *driver;   /* borrowed from whoever has this home */
	PyObject *worker;        /* the Worker that has it, likewise; NULL: the reactor */
	struct iox_node handing; /* a worker's: in the list of the driver, because it has something new */
	bool scheduled;          /* a worker's: its loop will call drain() */
};

/* A driver's modes that are not inline; for modes.h and homes.h alone. */
struct iox_modes {
	PyObject *on_resume;     /* posted: is given what resumes a task; NULL in the other modes */
	bool wake_each;          /* pool: every call of another thread writes a wake of its own */
	unsigned workers;        /* pool, pool_coalesced: threads on which handlers run */
	struct iox_node handing; /* homes of workers that have not been told of something */
};

#endif
