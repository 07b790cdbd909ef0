/* SPDX-License-Identifier: MIT */
/* Exceptions of callbacks, which are reported to the loop. */
#ifndef IOX_FAULTS_H
#define IOX_FAULTS_H

#include "driver_state.h"

/* Whether the pending exception has to leave the loop: KeyboardInterrupt and SystemExit. */
bool iox_unwinds(void);
/* Reports the pending exception; -1: it stays set, because it has to leave the loop. */
int iox_driver_report(Driver *driver, const char *what);

#endif
