/* SPDX-License-Identifier: MIT */
/* What an asyncio transport asks of a connection. */
#ifndef IOX_FACE_H
#define IOX_FACE_H

#include "connection_state.h"

bool iox_face_cut_off(const Connection *conn); /* what would be, were it ended now */
/* Methods of the type, for ioxide/transports.py */
PyObject *iox_face_attach(Connection *conn, PyObject *args);
PyObject *iox_face_detach(Connection *conn, PyObject *ignored);
PyObject *iox_face_read(Connection *conn, PyObject *reading);
PyObject *iox_face_take(Connection *conn, PyObject *limit);
PyObject *iox_face_take_into(Connection *conn, PyObject *buffer);
PyObject *iox_face_put(Connection *conn, PyObject *data);
PyObject *iox_face_watch(Connection *conn, PyObject *unsent);
PyObject *iox_face_check(Connection *conn, PyObject *ignored);
PyObject *iox_face_end_writes(Connection *conn, PyObject *ignored);
PyObject *iox_face_drop(Connection *conn, PyObject *ignored);

#endif
