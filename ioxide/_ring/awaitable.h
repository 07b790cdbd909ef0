/* SPDX-License-Identifier: MIT */
/* What recv(), read() and flush() return. */
#ifndef IOX_AWAITABLE_H
#define IOX_AWAITABLE_H

#include "connection_state.h"

enum iox_await_kind { IOX_AWAIT_RECV, IOX_AWAIT_READ, IOX_AWAIT_FLUSH };

extern PyType_Spec iox_AwaitSpec;
extern PyTypeObject *iox_AwaitType; /* made of iox_AwaitSpec by module.c */

PyObject *iox_await_new(Connection *conn, enum iox_await_kind kind, Py_ssize_t limit);

#endif
