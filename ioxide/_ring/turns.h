/* SPDX-License-Identifier: MIT */
/* Ticks one after the other, while the loop has nothing else to do. */
#ifndef IOX_TURNS_H
#define IOX_TURNS_H

#include "driver_state.h"

int iox_turns_init(void); /* -1 with an exception set */
/* A method of the driver's type */
PyObject *iox_driver_run_ticks(Driver *driver, PyObject *const *args, Py_ssize_t nargs);

#endif
