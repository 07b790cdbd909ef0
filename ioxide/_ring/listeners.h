/* SPDX-License-Identifier: MIT */
/* Listening sockets. */
#ifndef IOX_LISTENERS_H
#define IOX_LISTENERS_H

#include "driver_state.h"

bool iox_listeners_arm(Driver *driver); /* false: the submission queue is full */
void iox_listeners_complete(Driver *driver, uint32_t generation, uint32_t index, int res, unsigned flags);
uint64_t iox_listeners_soonest(const Driver *driver); /* ms; when one has rested, or UINT64_MAX */
void iox_listeners_expire(Driver *driver);
int iox_listeners_report(Driver *driver); /* errors of accepts; -1: it unwinds */
int iox_listeners_traverse(const Driver *driver, visitproc visit, void *arg);
void iox_listeners_clear(Driver *driver); /* of references to Python's objects */
/* Methods of the driver's type */
PyObject *iox_driver_listen(Driver *driver, PyObject *const *args, Py_ssize_t nargs);
PyObject *iox_driver_unlisten(Driver *driver, PyObject *const *args, Py_ssize_t nargs);
PyObject *iox_driver_accept(Driver *driver, PyObject *fd);

#endif
