/* SPDX-License-Identifier: MIT */
/*
 * Turns of the loop in which nothing happens but the ring's own events: a tick, and the next one, without
 * a detour through Python.  Whatever the loop's own code has to look at ends it: callbacks that are ready,
 * timers that were set or are due, posts, descriptors that epoll has found ready, stop(), debug mode, and a
 * _process_events() or, where there are timers, a time() that somebody has put into the loop.
 */
#include "turns.h"

#include "clock.h"
#include "dispatch.h"

/* What run_ticks() is given. */
enum { TIMEOUT, READY, SCHEDULED, POSTS, SELECTOR, LOOP, ARGUMENTS };

static PyObject *str_asleep, *str_rouse, *str_watchdog, *str_stopping, *str_debug, *str_process_events, *str_time;

/* The watchdog rests while nothing happens; what happens now is a reason to look again. */
static int rouse(PyObject *selector)
{
	PyObject *watchdog = PyObject_GetAttr(selector, str_watchdog), *asleep, *result;
	int rests;

	if (!watchdog)
		return -1;
	asleep = PyObject_GetAttr(watchdog, str_asleep);
	rests = asleep ? PyObject_IsTrue(asleep) : -1;
	Py_XDECREF(asleep);
	if (rests > 0) {
		result = PyObject_CallMethodNoArgs(watchdog, str_rouse);
		rests = result ? 0 : -1;
		Py_XDECREF(result);
	}
	Py_DECREF(watchdog);
	return rests;
}

/* 1 true, 0 false or not there, -1 an exception */
static int truth(PyObject *dict, PyObject *name)
{
	PyObject *value = PyDict_GetItemWithError(dict, name);

	if (!value)
		return PyErr_Occurred() ? -1 : 0;
	return value == Py_False ? 0 : value == Py_True ? 1 : PyObject_IsTrue(value);
}

/* Whether the loop's own attributes ask for a turn of its own; 1, 0 or -1. */
static int asked(PyObject *loop, bool timers)
{
	PyObject *dict = PyObject_GenericGetDict(loop, NULL);
	int ret;

	if (!dict)
		return -1;
	ret = truth(dict, str_stopping);
	if (!ret)
		ret = truth(dict, str_debug);
	if (!ret)
		ret = PyDict_Contains(dict, str_process_events);
	if (!ret && timers)
		ret = PyDict_Contains(dict, str_time); /* a clock that a callback may have moved */
	Py_DECREF(dict);
	return ret;
}

/* The timers as they were: how many, and which is due first. */
struct timers {
	Py_ssize_t count;
	PyObject *first; /* only compared */
};

static struct timers timers_of(PyObject *scheduled)
{
	struct timers found = { .count = PyList_GET_SIZE(scheduled) };

	if (found.count)
		found.first = PyList_GET_ITEM(scheduled, 0);
	return found;
}

/* Whether there is nothing but the next tick to be run; 1, 0 or -1. */
static int nothing_else(PyObject *const *args, const struct timers *before)
{
	struct timers now = timers_of(args[SCHEDULED]);
	Py_ssize_t waiting;
	int ret;

	if (now.count != before->count || now.first != before->first)
		return 0;
	waiting = PyObject_Size(args[READY]);
	if (waiting == 0)
		waiting = PyObject_Size(args[POSTS]);
	if (waiting)
		return waiting < 0 ? -1 : 0;
	ret = asked(args[LOOP], now.count);
	return ret < 0 ? -1 : !ret;
}

PyObject *iox_driver_run_ticks(Driver *self, PyObject *const *args, Py_ssize_t nargs)
{
	PyObject *timeout, *result = NULL;
	struct timers before;
	int64_t until = -1; /* ns */
	int go_on;

	if (nargs != ARGUMENTS || !PyList_Check(args[SCHEDULED])) {
		PyErr_SetString(PyExc_TypeError, "run_ticks(timeout, ready, scheduled, posts, selector, loop)");
		return NULL;
	}
	if (args[TIMEOUT] != Py_None) {
		double seconds = PyFloat_AsDouble(args[TIMEOUT]);

		if (seconds == -1.0 && PyErr_Occurred())
			return NULL;
		until = iox_clock_ns() + (seconds > 1e9 ? (int64_t)1e18 : seconds > 0 ? (int64_t)(seconds * 1e9) : 0);
	}
	before = timers_of(args[SCHEDULED]);
	timeout = Py_NewRef(args[TIMEOUT]);
	do {
		Py_ssize_t waiting;

		Py_XSETREF(result, iox_driver_wait(self, timeout));
		if (!result || rouse(args[SELECTOR]) < 0 || (waiting = PyObject_Size(args[READY])) < 0)
			goto failed;
		if (waiting)
			break; /* None, which wait() has returned */
		Py_SETREF(result, iox_driver_dispatch(self, NULL));
		if (!result)
			goto failed;
		go_on = result == Py_False ? nothing_else(args, &before) : 0;
		if (go_on > 0 && until >= 0) {
			int64_t left = until - iox_clock_ns();

			go_on = left > 0;
			if (go_on) {
				Py_SETREF(timeout, PyFloat_FromDouble((double)left / 1e9));
				go_on = timeout ? 1 : -1;
			}
		}
		if (go_on < 0)
			goto failed;
	} while (go_on);
	Py_DECREF(timeout);
	return result;
failed:
	Py_XDECREF(timeout);
	Py_XDECREF(result);
	return NULL;
}

int iox_turns_init(void)
{
	str_asleep = PyUnicode_InternFromString("asleep");
	str_rouse = PyUnicode_InternFromString("rouse");
	str_watchdog = PyUnicode_InternFromString("watchdog");
	str_stopping = PyUnicode_InternFromString("_stopping");
	str_debug = PyUnicode_InternFromString("_debug");
	str_process_events = PyUnicode_InternFromString("_process_events");
	str_time = PyUnicode_InternFromString("time");
	return str_asleep && str_rouse && str_watchdog && str_stopping && str_debug && str_process_events &&
			       str_time ?
		       0 :
		       -1;
}
