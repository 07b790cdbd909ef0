/* SPDX-License-Identifier: MIT */
/* The end of a ring, as far as the kernel is concerned. */
#ifndef IOX_DRAIN_H
#define IOX_DRAIN_H

#include "driver_state.h"

bool iox_driver_drain(Driver *driver); /* false: the kernel did not let go in time */

#endif
