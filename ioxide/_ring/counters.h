/* SPDX-License-Identifier: MIT */
/* Counters, gauges and the flight recorder of a reactor; from any thread, under the GIL. */
#ifndef IOX_COUNTERS_H
#define IOX_COUNTERS_H

#include "driver_state.h"

/* Woken tasks and transports that were not called yet, and accepted connections that were not taken in yet. */
unsigned long iox_driver_ready_count(const Driver *driver);
unsigned long iox_driver_listener_count(const Driver *driver); /* those that are not being closed */
PyObject *iox_driver_counters(Driver *driver);
PyObject *iox_driver_record(Driver *driver, PyObject *ignored); /* its flight recorder, as bytes */

#endif
