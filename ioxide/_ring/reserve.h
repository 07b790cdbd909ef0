/* SPDX-License-Identifier: MIT */
/* Shared buffers that are kept free. */
#ifndef IOX_RESERVE_H
#define IOX_RESERVE_H

#include "driver_state.h"

void iox_driver_provide(Driver *driver); /* buffers of the shared group, before an enter */

#endif
