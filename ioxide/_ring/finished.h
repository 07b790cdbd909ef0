/* SPDX-License-Identifier: MIT */
/* What a Task's wake-up is given in the place of a Waiter that was not cancelled. */
#ifndef IOX_FINISHED_H
#define IOX_FINISHED_H

#include "interpreter.h"

int iox_finished_init(void); /* -1 with an exception set */
/*
 * What to call `callback` with, for a `waiter` whose result() is None: an asyncio.Future that has the result
 * None, if the callback is the wake-up of a Task in C; otherwise the Waiter.  A borrowed reference.
 */
PyObject *iox_finished_for(PyObject *callback, PyObject *waiter);

#endif
