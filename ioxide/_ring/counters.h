/* SPDX-License-Identifier: MIT */
/* What a reactor has counted, and what there is of it now; from any thread, under the GIL. */
#ifndef IOX_COUNTERS_H
#define IOX_COUNTERS_H

#include "driver_state.h"

/* Tasks and transports that were woken and not called yet, and connections that were not taken in yet. */
unsigned long iox_driver_ready_count(const Driver *driver);
unsigned long iox_driver_listener_count(const Driver *driver); /* those that are not being closed */
PyObject *iox_driver_counters(Driver *driver);
PyObject *iox_driver_record(Driver *driver, PyObject *ignored); /* its flight recorder, as bytes */

#endif
