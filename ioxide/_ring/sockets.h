/* SPDX-License-Identifier: MIT */
/* System calls on a connection's descriptor. */
#ifndef IOX_SOCKETS_H
#define IOX_SOCKETS_H

#include "connection_state.h"

bool iox_conn_block(Connection *conn); /* clears O_NONBLOCK; false: it was not set */
int iox_socket_dissolve(int fd);       /* drops unacknowledged data and resets; as connect(2) */
void iox_socket_reset(int fd);
bool iox_socket_resets_on_close(int fd);
/* As Python's socket module has them; None where there is no address of a family of TCP. */
PyObject *iox_socket_peername(int fd); /* the one that accept(2) saw, also when the peer has reset */
PyObject *iox_socket_sockname(int fd);

#endif
