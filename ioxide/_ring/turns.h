/* SPDX-License-Identifier: MIT */
/* Turns of the loop, one after the other. */
#ifndef IOX_TURNS_H
#define IOX_TURNS_H

#include "driver_state.h"

int iox_turns_init(void); /* -1 with an exception set */
/* A method of the driver's type */
PyObject *iox_driver_run_turns(Driver *driver, PyObject *const *args, Py_ssize_t nargs);

#endif
