/* SPDX-License-Identifier: MIT */
/* asyncio's own Handle and TimerHandle: made, queued and run without their Python code. */
#ifndef IOX_HANDLES_H
#define IOX_HANDLES_H

#include "interpreter.h"

int iox_handles_init(void); /* -1 with an exception set */
/*
 * Whether instances of the two classes may be made and run here: their slots are where they were expected,
 * and nobody has replaced a method that would be passed over.
 */
bool iox_handles_usable(void);
/* Whether asyncio would make an instance of that class: somebody may have put another into asyncio.events. */
bool iox_handles_named(bool timer);
/*
 * A Handle, or a TimerHandle that is due at `when` (a float, which is not NULL then); NULL with an exception
 * set.  `context` None: a copy of the current one.  Only while they are usable, and outside debug mode.
 */
PyObject *iox_handle_new(PyObject *loop, PyObject *callback, PyObject *args, PyObject *context, PyObject *when);
/* What BaseEventLoop._run_once() does with one of its queue; -1 with an exception that ends the loop. */
int iox_handle_run(PyObject *handle);
/* What the loop asks of a timer, and tells it. */
bool iox_handle_is_timer(PyObject *handle); /* a TimerHandle whose time is a float; only of those: */
double iox_timer_when(PyObject *timer);
bool iox_timer_cancelled(PyObject *timer);
void iox_timer_set_scheduled(PyObject *timer, bool scheduled);

#endif
