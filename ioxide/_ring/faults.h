/* SPDX-License-Identifier: MIT */
/* What callbacks raise, and the loop has to be told of. */
#ifndef IOX_FAULTS_H
#define IOX_FAULTS_H

#include "driver_state.h"

int iox_driver_report(Driver *driver, const char *what); /* a pending exception; -1: it unwinds */

#endif
