/* SPDX-License-Identifier: MIT */
/* Operations that the kernel had no memory for. */
#ifndef IOX_REST_H
#define IOX_REST_H

#include "connection_state.h"
#include "driver_state.h"

/*
 * Of a receive or a send that has ended with -ENOMEM, or a send with -ENOBUFS: nothing was received or sent
 * by it, so it is as if it had not been submitted.  `want` is IOX_WANT_RECV or IOX_WANT_SEND.
 */
void iox_rest(Connection *conn, uint8_t want);
void iox_rest_leave(Connection *conn);      /* it has ended */
uint64_t iox_rest_until(const Driver *driver); /* ms; UINT64_MAX: nobody rests */
void iox_rest_end(Driver *driver);          /* whoever has rested long enough wants it again */

#endif
