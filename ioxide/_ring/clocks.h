/* SPDX-License-Identifier: MIT */
/* The clock of a read, and of the peer's FIN behind ours. */
#ifndef IOX_CLOCKS_H
#define IOX_CLOCKS_H

#include "connection_state.h"

void iox_recv_start_clock(Connection *conn);
uint64_t iox_recv_fin_timeout(const Connection *conn); /* ms; how long the peer's FIN is waited for after ours */

#endif
