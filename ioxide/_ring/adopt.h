/* SPDX-License-Identifier: MIT */
/* Where connections come from: accepted by the ring, or connected by asyncio and taken over. */
#ifndef IOX_ADOPT_H
#define IOX_ADOPT_H

#include "connection_state.h"
#include "driver_state.h"

Connection *iox_conn_new(Driver *driver, int fd, bool for_handler); /* NULL: no room; fd stays the caller's */
PyObject *iox_driver_adopt(Driver *driver, PyObject *const *args, Py_ssize_t nargs);

#endif
