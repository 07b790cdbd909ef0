/* SPDX-License-Identifier: MIT */
/* A listening socket that the ring accepts on. */
#ifndef IOX_LISTENER_STATE_H
#define IOX_LISTENER_STATE_H

#include "interpreter.h"

#include <stdint.h>

struct iox_listener {
	int fd;
	uint32_t generation;
	bool used, armed, stopping;
	bool polls_late;   /* this kernel refused IOX_ACCEPT_POLL_FIRST */
	uint64_t retry_at; /* ms; 0 = not parked */
	PyObject *on_connection; /* asyncio's create_server(); NULL: the connections are handlers' */
	PyObject *on_error; /* called with an OSError; NULL: failures are only counted */
	int error;         /* an errno that on_error has not been told of, or 0 */
	uint64_t told_at;  /* ms; when on_error was last told, 0 = never */
};

#define IOX_MAX_LISTENERS 64

#endif
