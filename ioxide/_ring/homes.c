/* SPDX-License-Identifier: MIT */
#include "homes.h"

#include "owner.h"

/* Its worker is held, until detach(): whoever asks for it must not meet one that has gone. */
static __thread struct iox_home *here;

struct iox_home *iox_home_here(const Driver *driver)
{
	return here && here->driver == driver ? here : NULL;
}

bool iox_home_is_here(const struct iox_home *home)
{
	return here == home;
}

bool iox_home_enter(struct iox_home *home)
{
	if (here)
		return false;
	Py_INCREF(home->worker);
	home->driver->modes.workers++;
	here = home;
	return true;
}

void iox_home_leave(void)
{
	PyObject *worker = here->worker;

	here->driver->modes.workers--;
	here = NULL;
	Py_DECREF(worker);
}

/* On the worker's own thread: what was queued there runs when the current step has ended. */
static int schedule(struct iox_home *home, const char *how)
{
	PyObject *drain, *loop, *result = NULL;

	iox_list_remove(&home->handing);
	if (home->scheduled || !home->loop)
		return 0;
	home->scheduled = true;
	loop = Py_NewRef(home->loop); /* detach() may drop it meanwhile */
	drain = PyObject_GetAttrString(home->worker, "drain");
	if (drain)
		result = PyObject_CallMethod(loop, how, "O", drain);
	Py_XDECREF(drain);
	Py_DECREF(loop);
	if (!result)
		home->scheduled = false;
	Py_XDECREF(result);
	return result ? 0 : -1;
}

int iox_home_schedule(struct iox_home *home)
{
	return schedule(home, "call_soon");
}

int iox_homes_hand_over(Driver *driver)
{
	int ret = 0;

	while (!ret && iox_list_linked(&driver->modes.handing)) {
		struct iox_home *home = IOX_ENTRY(driver->modes.handing.next, struct iox_home, handing);
		PyObject *worker = Py_NewRef(home->worker);

		if (home->loop)
			driver->counters.handoffs++;
		ret = schedule(home, "call_soon_threadsafe");
		if (ret < 0 && PyErr_ExceptionMatches(PyExc_RuntimeError)) {
			PyErr_Clear(); /* its loop has been closed: whoever waited there has ended */
			ret = 0;
		}
		if (ret < 0)
			iox_home_notify(home); /* a signal's KeyboardInterrupt: the next tick tells it */
		Py_DECREF(worker);
	}
	return ret;
}

int iox_conn_check_thread(const Connection *conn)
{
	if (!iox_driver_is_here(conn->driver)) {
		PyObject *name = NULL, *loop;

		if (conn->driver->forks != iox_forks) {
			PyErr_SetString(PyExc_RuntimeError,
					"this connection belongs to the process that opened it, of which this "
					"is a fork: what is done to it here would be done to the parent's, too");
			return -1;
		}
		if (iox_home_here(conn->driver))
			return 1;
		loop = Py_XNewRef(conn->driver->home.loop);
		if (loop)
			name = PyObject_GetAttrString(loop, "reactor_name");
		Py_XDECREF(loop);
		PyErr_Clear();
		PyErr_Format(PyExc_RuntimeError,
			     "this connection belongs to %V on thread %lu, not to thread %lu: "
			     "hand the work over with Reactor.post()",
			     name, "the reactor", conn->driver->thread, PyThread_get_thread_ident());
		Py_XDECREF(name);
		return -1;
	}
	return 0;
}

int iox_conn_check_reactor(const Connection *conn)
{
	int where = iox_conn_check_thread(conn);

	if (where > 0)
		PyErr_SetString(PyExc_RuntimeError,
				"this is done on the reactor's thread alone, not on a worker's: "
				"hand it over with Reactor.post()");
	return where ? -1 : 0;
}
