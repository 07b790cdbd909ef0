/* SPDX-License-Identifier: MIT */
/* The end of a ring: its operations are cancelled, and waited for. */
#ifndef IOX_QUIESCE_H
#define IOX_QUIESCE_H

#include "driver_state.h"

bool iox_driver_quiesce(Driver *driver); /* false: some operation did not end in time */

#endif
