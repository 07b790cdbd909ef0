/* SPDX-License-Identifier: MIT */
/* Operations that the kernel had no memory for: they are submitted again after a delay. */
#ifndef IOX_RETRY_H
#define IOX_RETRY_H

#include "connection_state.h"
#include "driver_state.h"

/*
 * For a receive or a send that has failed with -ENOMEM, or a send with -ENOBUFS: it has received or sent
 * nothing.  `want` is IOX_WANT_RECV or IOX_WANT_SEND.
 */
void iox_retry_later(Connection *conn, uint8_t want);
void iox_retry_forget(Connection *conn);     /* the connection has ended */
uint64_t iox_retry_at(const Driver *driver); /* ms; UINT64_MAX: there is none */
void iox_retry_due(Driver *driver);          /* submits again what has waited long enough */

#endif
