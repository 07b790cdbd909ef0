/* SPDX-License-Identifier: MIT */
/* What an asyncio transport asks of a connection. */
#ifndef IOX_FACE_H
#define IOX_FACE_H

#include "connection_state.h"

int iox_face_init(void); /* -1 with an exception set */
bool iox_face_cut_off(const Connection *conn); /* what would be, were it ended now */
void iox_face_let_go(Connection *conn); /* calls the transport no more */
/* Methods of the type, for ioxide/_asyncio/transports.py */
PyObject *iox_face_attach(Connection *conn, PyObject *args);
PyObject *iox_face_detach(Connection *conn, PyObject *ignored);
PyObject *iox_face_read(Connection *conn, PyObject *reading);
PyObject *iox_face_take(Connection *conn, PyObject *limit);
PyObject *iox_face_take_into(Connection *conn, PyObject *buffer);
PyObject *iox_face_put(Connection *conn, PyObject *data);
PyObject *iox_face_watch(Connection *conn, PyObject *unsent);
PyObject *iox_face_check(Connection *conn, PyObject *ignored);
PyObject *iox_face_end_writes(Connection *conn, PyObject *ignored);
PyObject *iox_face_deliver_to(Connection *conn, PyObject *data_received);
PyObject *iox_face_take_writes(Connection *conn, PyObject *high);
PyObject *iox_face_refuse_writes(Connection *conn, PyObject *ignored);
PyObject *iox_face_writer(Connection *conn, PyObject *transport);
PyObject *iox_face_drop(Connection *conn, PyObject *ignored);

#endif
