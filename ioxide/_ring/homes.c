/* SPDX-License-Identifier: MIT */
#include "homes.h"

#include "owner.h"

/* Of the calling worker; it holds a reference to the Worker until detach(). */
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

/* Has the worker's loop call run_ready(); once, until that has begun. */
static int schedule(struct iox_home *home, const char *how)
{
	PyObject *run_ready, *loop, *result = NULL;

	iox_list_remove(&home->notify);
	if (home->scheduled || !home->loop)
		return 0;
	home->scheduled = true;
	loop = Py_NewRef(home->loop); /* detach() may drop it meanwhile */
	run_ready = PyObject_GetAttrString(home->worker, "run_ready");
	if (run_ready)
		result = PyObject_CallMethod(loop, how, "O", run_ready);
	Py_XDECREF(run_ready);
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

	while (!ret && iox_list_linked(&driver->modes.to_notify)) {
		struct iox_home *home = IOX_ENTRY(driver->modes.to_notify.next, struct iox_home, notify);
		PyObject *worker = Py_NewRef(home->worker);

		if (home->loop)
			driver->counters.handoffs++;
		ret = schedule(home, "call_soon_threadsafe");
		if (ret < 0 && PyErr_ExceptionMatches(PyExc_RuntimeError)) {
			PyErr_Clear(); /* its loop was closed: its tasks have ended */
			ret = 0;
		}
		if (ret < 0)
			iox_home_notify(home); /* the KeyboardInterrupt of a signal: the next tick notifies it */
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
