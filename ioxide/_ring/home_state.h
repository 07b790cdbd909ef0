/* SPDX-License-Identifier: MIT */
/* Where parked tasks go on: on the reactor, or on a worker (the pool modes). */
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
	struct iox_node handing; /* a worker's: in driver->handing, because it has something new */
	bool scheduled;          /* a worker's: its loop will call drain() */
};

#endif
