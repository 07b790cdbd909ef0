/* SPDX-License-Identifier: MIT */
/* A tick from Python: wait(), then dispatch(), or its two halves. */
#ifndef IOX_DISPATCH_H
#define IOX_DISPATCH_H

#include "driver_state.h"

/* Drops the references to connections that have ended.  May run Python code: callbacks of weakrefs, finalizers. */
void iox_driver_drop_ended(Driver *driver);
void iox_driver_take_next(Driver *driver); /* this is the next tick for waiters of iox_waiter_wake_next() */
bool iox_driver_has_batch(const Driver *driver); /* whether resume_batch() has anything to do */
/* Methods of the driver's type */
PyObject *iox_driver_begin_run(Driver *driver, PyObject *ignored);
PyObject *iox_driver_end_run(Driver *driver, PyObject *ignored);
PyObject *iox_driver_wait(Driver *driver, PyObject *timeout);
PyObject *iox_driver_dispatch(Driver *driver, PyObject *ignored);
PyObject *iox_driver_take_in(Driver *driver, PyObject *ignored);
PyObject *iox_driver_resume_batch(Driver *driver, PyObject *ignored);
PyObject *iox_driver_feed(Driver *driver, PyObject *batch);

#endif
