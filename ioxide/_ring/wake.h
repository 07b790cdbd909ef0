/* SPDX-License-Identifier: MIT */
/* How a reactor that waits in the kernel is woken. */
#ifndef IOX_WAKE_H
#define IOX_WAKE_H

#include "driver_state.h"

void iox_driver_wake(Driver *driver); /* from any thread */
void iox_driver_wake_for_call(Driver *driver); /* the same, for a call that was queued */
/* Queues, with references to the connection and the load, and wakes; false: no memory. */
bool iox_driver_queue(Driver *driver, struct iox_op op);

#endif
