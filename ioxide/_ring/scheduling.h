/* SPDX-License-Identifier: MIT */
/* call_soon(), call_at() and call_later() of a loop, and its clock. */
#ifndef IOX_SCHEDULING_H
#define IOX_SCHEDULING_H

#include "interpreter.h"

extern PyTypeObject *iox_SchedulingType; /* made of iox_SchedulingSpec by module.c */
extern PyType_Spec iox_SchedulingSpec;

int iox_scheduling_init(void); /* -1 with an exception set */
/* What time() of a loop returns, in seconds, which has `dict` as its __dict__; -1 with an exception set. */
int iox_loop_time(PyObject *loop, PyObject *dict, double *seconds);
/* Whether that is the machine's CLOCK_MONOTONIC, which nobody can move; 1, 0, or -1 with an exception set. */
int iox_loop_time_is_real(PyObject *loop, PyObject *dict);
PyObject *iox_heap_pop(PyObject *heap); /* heapq.heappop() */

#endif
