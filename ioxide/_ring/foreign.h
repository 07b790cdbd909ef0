/* SPDX-License-Identifier: MIT */
/* Calls of other threads on a connection. */
#ifndef IOX_FOREIGN_H
#define IOX_FOREIGN_H

#include "connection_state.h"
#include "waiter.h"

PyObject *iox_foreign_write(Connection *conn, PyObject *data);
int iox_foreign_flush(Connection *conn, Waiter *waiter);
int iox_foreign_close(Connection *conn, bool abort);

#endif
