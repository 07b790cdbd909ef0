/* SPDX-License-Identifier: MIT */
/* What a driver is made of: its ring, receive buffers, write slabs and eventfd. */
#ifndef IOX_OPEN_H
#define IOX_OPEN_H

#include "driver_state.h"

/* Opens all of it as the settings say; false with an exception set, and nothing is left open. */
bool iox_driver_open(Driver *driver);
/* Of a driver that nobody has closed, and that has no connections: on any thread. */
void iox_driver_free(Driver *driver);

#endif
