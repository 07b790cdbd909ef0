/* SPDX-License-Identifier: MIT */
/*
 * Worker: a thread with an asyncio loop of its own, on which handlers live in the pool modes.
 *
 * A Waiter remembers the worker that parked it (home).  When the reactor wakes it, it goes into the
 * worker's queue instead of the reactor's, and before the reactor waits for its next batch it tells
 * each worker that has something new, once: loop.call_soon_threadsafe(worker.run_ready).  There the tasks
 * are resumed as dispatch() does it on the reactor.
 *
 * A connection's queue of received bytes, its reader and its clocks are shared under the GIL.  What
 * needs the ring, the buffers or the slabs is queued for the reactor (foreign.c, buffers.c).
 */
#include "worker.h"

#include "connection.h"
#include "connection_state.h"
#include "driver.h"
#include "faults.h"
#include "foreign.h"
#include "homes.h"
#include "owner.h"
#include "waiter.h"

/* A thread with a loop of its own, where handlers live in the pool modes. */
typedef struct Worker {
	PyObject_HEAD
	Driver *driver;           /* strong */
	struct iox_home home;     /* its loop is strong */
	PyObject *on_connection;
	PyObject *starting;       /* connections to hand to on_connection */
} Worker;

static bool waits(const Worker *self)
{
	return iox_list_linked(&self->home.ready) || PyList_GET_SIZE(self->starting);
}

static PyObject *worker_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "driver", "loop", "on_connection", NULL };
	PyObject *driver, *loop, *on_connection;
	Worker *self;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!OO:Worker", names, iox_DriverType, &driver, &loop,
					 &on_connection))
		return NULL;
	self = (Worker *)type->tp_alloc(type, 0);
	if (!self)
		return NULL;
	IOX_LISTS_INIT(&self->home.ready, &self->home.notify);
	self->driver = self->home.driver = (Driver *)Py_NewRef(driver);
	self->home.worker = (PyObject *)self;
	self->home.loop = Py_NewRef(loop);
	self->on_connection = Py_NewRef(on_connection);
	self->starting = PyList_New(0);
	if (!self->starting) {
		Py_DECREF(self);
		return NULL;
	}
	/* After the allocations, in which a finalizer may make another worker. */
	if (!iox_home_enter(&self->home)) {
		Py_DECREF(self);
		PyErr_SetString(PyExc_RuntimeError, "this thread is a worker already");
		return NULL;
	}
	return (PyObject *)self;
}

static int check_own_thread(Worker *self)
{
	if (iox_home_is_here(&self->home))
		return 0;
	PyErr_SetString(PyExc_RuntimeError, "a worker is used on the thread that made it");
	return -1;
}

static PyObject *worker_start(Worker *self, PyObject *conn)
{
	if (!PyObject_TypeCheck(conn, iox_ConnectionType)) {
		PyErr_Format(PyExc_TypeError, "start() takes a Connection, not %R", conn);
		return NULL;
	}
	if (((Connection *)conn)->driver != self->driver) {
		PyErr_Format(PyExc_ValueError, "%R is a connection of another reactor than this worker's", conn);
		return NULL;
	}
	if (!self->home.loop)
		Py_RETURN_FALSE;
	if (PyList_Append(self->starting, conn) < 0)
		return NULL;
	iox_home_notify(&self->home);
	Py_RETURN_TRUE;
}

static int start_one(Worker *self)
{
	PyObject *conn, *result;

	conn = Py_NewRef(PyList_GET_ITEM(self->starting, 0));
	if (PyList_SetSlice(self->starting, 0, 1, NULL) < 0) {
		Py_DECREF(conn);
		return -1;
	}
	result = PyObject_CallOneArg(self->on_connection, conn);
	if (!result) {
		PyObject *type, *value, *traceback;

		PyErr_Fetch(&type, &value, &traceback);
		if (iox_foreign_close((Connection *)conn, true) < 0)
			PyErr_Clear();
		PyErr_Restore(type, value, traceback);
	}
	Py_XDECREF(result);
	Py_DECREF(conn);
	return result ? 0 : iox_driver_report(self->driver, "a connection's handler could not be started");
}

static PyObject *worker_run_ready(Worker *self, PyObject *Py_UNUSED(ignored))
{
	struct iox_node taken;
	int ret = 0;

	if (check_own_thread(self) < 0)
		return NULL;
	/*
	 * Cleared first, so that the reactor schedules another call for what it adds from here on.  Only what
	 * is queued now is run, because the reactor may add as fast as this runs.
	 */
	self->home.scheduled = false;
	iox_list_init(&taken);
	iox_list_put_first(&taken, &self->home.ready);
	for (Py_ssize_t left = PyList_GET_SIZE(self->starting); left && !ret && PyList_GET_SIZE(self->starting);
	     left--)
		ret = start_one(self);
	while (!ret && iox_list_linked(&taken)) {
		Waiter *waiter = IOX_ENTRY(taken.next, Waiter, ready);

		iox_list_remove(&waiter->ready);
		ret = iox_waiter_resume_reported(waiter);
		Py_DECREF(waiter);
	}
	iox_list_put_first(&self->home.ready, &taken);
	if (ret < 0) {
		/* KeyboardInterrupt or SystemExit: the others stay queued, for when the loop runs again. */
		PyObject *type, *value, *traceback;

		PyErr_Fetch(&type, &value, &traceback);
		if (waits(self) && iox_home_schedule(&self->home) < 0)
			PyErr_Clear();
		PyErr_Restore(type, value, traceback);
		return NULL;
	}
	Py_RETURN_NONE;
}

static PyObject *worker_detach(Worker *self, PyObject *Py_UNUSED(ignored))
{
	PyObject *loop;

	if (check_own_thread(self) < 0)
		return NULL;
	for (Py_ssize_t i = 0; i < PyList_GET_SIZE(self->starting); i++)
		if (iox_foreign_close((Connection *)PyList_GET_ITEM(self->starting, i), false) < 0)
			return NULL;
	/* From here on start() returns False, also in finalizers that run below. */
	loop = self->home.loop;
	self->home.loop = NULL;
	if (PyList_SetSlice(self->starting, 0, PyList_GET_SIZE(self->starting), NULL) < 0) {
		self->home.loop = loop;
		return NULL;
	}
	iox_list_remove(&self->home.notify);
	while (iox_list_linked(&self->home.ready)) {
		Waiter *waiter = IOX_ENTRY(self->home.ready.next, Waiter, ready);

		iox_list_remove(&waiter->ready);
		waiter->state = IOX_WAITER_DONE; /* its task has ended with the loop */
		Py_DECREF(waiter);
	}
	iox_home_leave(); /* not the last reference: the caller has one */
	Py_XDECREF(loop);
	Py_RETURN_NONE;
}

static int worker_traverse(Worker *self, visitproc visit, void *arg)
{
	Py_VISIT(Py_TYPE(self));
	Py_VISIT(self->driver);
	Py_VISIT(self->home.loop);
	Py_VISIT(self->on_connection);
	Py_VISIT(self->starting);
	return 0;
}

static int worker_clear(Worker *self)
{
	Py_CLEAR(self->home.loop);
	Py_CLEAR(self->on_connection);
	return 0;
}

static void worker_dealloc(Worker *self)
{
	PyTypeObject *type = Py_TYPE(self);

	PyObject_GC_UnTrack(self);
	iox_list_remove(&self->home.notify);
	worker_clear(self);
	Py_CLEAR(self->starting);
	Py_CLEAR(self->driver);
	type->tp_free((PyObject *)self);
	Py_DECREF(type);
}

PyDoc_STRVAR(worker_start_doc,
"start($self, connection, /)\n"
"--\n"
"\n"
"Hand a connection to the worker's on_connection; on the reactor's thread.\n"
"\n"
"False when the worker has ended.  Raises TypeError and ValueError for what is no connection of this\n"
"worker's reactor.");

PyDoc_STRVAR(worker_run_ready_doc,
"run_ready($self, /)\n"
"--\n"
"\n"
"Start and resume what the reactor has handed over; on the worker's thread, where its loop calls it.");

PyDoc_STRVAR(worker_detach_doc,
"detach($self, /)\n"
"--\n"
"\n"
"Take nothing any more, and close what was not started; on the worker's thread, when its loop ends.");

static PyMethodDef worker_methods[] = {
	{ "start", (PyCFunction)worker_start, METH_O, worker_start_doc },
	{ "run_ready", (PyCFunction)worker_run_ready, METH_NOARGS, worker_run_ready_doc },
	{ "detach", (PyCFunction)worker_detach, METH_NOARGS, worker_detach_doc },
	{ NULL },
};

PyDoc_STRVAR(worker_doc,
"Worker(driver, loop, on_connection)\n--\n\n"
"The calling thread, which runs `loop`, as a home of handlers (the pool modes).\n\n"
"`on_connection(connection)` is called there for each connection that start() hands over.  Raises\n"
"RuntimeError when the thread is a worker already.");

static PyType_Slot worker_slots[] = {
	{ Py_tp_doc, (void *)worker_doc },
	{ Py_tp_new, (void *)worker_new },
	{ Py_tp_dealloc, (void *)worker_dealloc },
	{ Py_tp_traverse, (void *)worker_traverse },
	{ Py_tp_clear, (void *)worker_clear },
	{ Py_tp_methods, (void *)worker_methods },
	{ 0, NULL },
};

PyType_Spec iox_WorkerSpec = {
	.name = "ioxide._ring._core.Worker",
	.basicsize = sizeof(Worker),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC,
	.slots = worker_slots,
};

PyTypeObject *iox_WorkerType;
