/* SPDX-License-Identifier: MIT */
/* What is done to a connection's descriptor beside the ring. */
#ifndef IOX_SOCKETS_H
#define IOX_SOCKETS_H

#include "connection_state.h"

bool iox_conn_block(Connection *conn); /* clears O_NONBLOCK; false: it was not set */
int iox_socket_dissolve(int fd);       /* drops what was not acknowledged, and resets */
void iox_socket_reset(int fd);
bool iox_socket_resets_on_close(int fd);

#endif
