/* SPDX-License-Identifier: MIT */
/* A tick from Python: wait(), then dispatch(), or its two halves. */
#ifndef IOX_DISPATCH_H
#define IOX_DISPATCH_H

#include "driver_state.h"

/* Drops the references of what is over.  Runs Python code: weakrefs' callbacks and finalizers. */
void iox_driver_let_go(Driver *driver);
void iox_driver_take_next(Driver *driver); /* what was to be called with the next tick is called now */
/* Methods of the driver's type */
PyObject *iox_driver_begin_run(Driver *driver, PyObject *ignored);
PyObject *iox_driver_end_run(Driver *driver, PyObject *ignored);
PyObject *iox_driver_wait(Driver *driver, PyObject *timeout);
PyObject *iox_driver_dispatch(Driver *driver, PyObject *ignored);
PyObject *iox_driver_take_in(Driver *driver, PyObject *ignored);
PyObject *iox_driver_resume_batch(Driver *driver, PyObject *ignored);
PyObject *iox_driver_feed(Driver *driver, PyObject *batch);

#endif
