/* SPDX-License-Identifier: MIT */
/* The end of a driver. */
#ifndef IOX_CLOSE_H
#define IOX_CLOSE_H

#include "driver_state.h"

/* Methods of the driver's type */
PyObject *iox_driver_close(Driver *driver, PyObject *ignored);
PyObject *iox_driver_abandon(Driver *driver, PyObject *ignored);

#endif
