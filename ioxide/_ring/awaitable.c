/* SPDX-License-Identifier: MIT */
/*
 * Await: what recv(), read() and flush() return.   Waiter: what an Await yields to the Task.
 *
 * Two objects, because asyncio must not take an Await for a future: where asyncio.isfuture(recv())
 * is true, wait_for() and gather() add their own callbacks to it, and a second reader silently
 * replaces the first.  So the Await is a coroutine in the sense of collections.abc.Coroutine
 * (create_task() accepts it as it is), and only the Task that drives it ever sees the Waiter.
 *
 * A Task is resumed by calling the wake-up it handed to add_done_callback(), in the Task's context.
 * That happens in iox_waiter_resume() alone, which Driver.dispatch() alone calls: no Task is current
 * and no context is entered there.  Whatever completes inside a step is queued (iox_waiter_wake()).
 */
#include "internal.h"

PyObject *iox_CancelledError;

#define FREE_LIMIT 128

static Await *free_awaits[FREE_LIMIT];
static Waiter *free_waiters[FREE_LIMIT];
static unsigned free_await_count, free_waiter_count;

/* ---- Waiter ------------------------------------------------------------------------------- */

Waiter *iox_waiter_new(Driver *driver, PyObject *callback)
{
	PyObject *context = NULL;
	Waiter *self;

	if (callback && !(context = PyContext_CopyCurrent()))
		return NULL;
	if (free_waiter_count) {
		self = free_waiters[--free_waiter_count];
		_Py_NewReference((PyObject *)self);
	} else {
		self = PyObject_GC_New(Waiter, &iox_WaiterType);
		if (!self) {
			Py_XDECREF(context);
			return NULL;
		}
	}
	self->driver = (Driver *)Py_NewRef(driver);
	self->home = NULL;
	self->callback = Py_XNewRef(callback);
	self->context = context;
	self->cancel_message = NULL;
	iox_list_init(&self->ready);
	iox_list_init(&self->flushes);
	self->target = 0;
	self->state = IOX_WAITER_PENDING;
	self->cancelled = self->standing = false;
	self->blocking = true;
	self->settles = callback;
	PyObject_GC_Track(self);
	return self;
}

Waiter *iox_waiter_standing(Driver *driver, PyObject *callback, PyObject *context)
{
	Waiter *self = iox_waiter_new(driver, NULL);

	if (!self)
		return NULL;
	self->callback = Py_NewRef(callback);
	self->context = Py_NewRef(context);
	self->standing = true;
	return self;
}

static int waiter_traverse(Waiter *self, visitproc visit, void *arg)
{
	Py_VISIT(self->driver);
	Py_VISIT(self->home);
	Py_VISIT(self->callback);
	Py_VISIT(self->context);
	Py_VISIT(self->cancel_message);
	return 0;
}

static int waiter_clear(Waiter *self)
{
	Py_CLEAR(self->callback);
	Py_CLEAR(self->context);
	Py_CLEAR(self->cancel_message);
	return 0;
}

void iox_waiter_dismiss(Waiter *self)
{
	self->standing = false;
	waiter_clear(self);
	Py_DECREF(self);
}

static void waiter_dealloc(Waiter *self)
{
	PyObject_GC_UnTrack(self);
	/* The ready queue and the flush list hold references: it is in neither. */
	waiter_clear(self);
	Py_CLEAR(self->home);
	Py_CLEAR(self->driver);
	if (free_waiter_count < FREE_LIMIT)
		free_waiters[free_waiter_count++] = self;
	else
		PyObject_GC_Del(self);
}

static void waiter_queue(Waiter *self, enum iox_waiter_state state)
{
	self->state = state;
	iox_list_append(self->home ? &self->home->ready : &self->driver->ready, &self->ready);
	Py_INCREF(self);
}

void iox_waiter_wake(Waiter *self)
{
	if (self->state == IOX_WAITER_PENDING) {
		waiter_queue(self, IOX_WAITER_WOKEN);
		if (self->home)
			iox_worker_notify(self->home);
	}
}

static PyObject *waiter_loop(Waiter *self)
{
	return self->home ? self->home->loop : self->driver->loop;
}

void iox_waiter_wake_next(Waiter *self)
{
	if (self->state != IOX_WAITER_PENDING)
		return;
	self->state = IOX_WAITER_WOKEN;
	iox_list_append(&self->driver->next, &self->ready);
	Py_INCREF(self);
}

static int waiter_call_soon(Waiter *self, PyObject *callback, PyObject *context)
{
	PyObject *method, *kwargs = NULL, *args = NULL, *handle = NULL;

	if (!waiter_loop(self)) {
		PyErr_SetString(PyExc_RuntimeError, "the loop of this ioxide await has ended");
		return -1;
	}
	method = PyObject_GetAttrString(waiter_loop(self), "call_soon");
	if (method)
		args = PyTuple_Pack(2, callback, (PyObject *)self);
	if (args)
		kwargs = PyDict_New();
	if (kwargs && PyDict_SetItemString(kwargs, "context", context) == 0)
		handle = PyObject_Call(method, args, kwargs);
	Py_XDECREF(method);
	Py_XDECREF(args);
	Py_XDECREF(kwargs);
	Py_XDECREF(handle);
	return handle ? 0 : -1;
}

int iox_waiter_resume(Waiter *self)
{
	PyObject *callback = self->callback, *context = self->context, *result;
	PyObject *type, *value, *traceback;
	int ret;

	if (self->standing) {
		/* Before the call: what happens in it may wake it once more. */
		Py_INCREF(callback);
		Py_INCREF(context);
		self->state = IOX_WAITER_PENDING;
	} else {
		self->callback = self->context = NULL;
		self->state = IOX_WAITER_DONE;
	}
	if (!callback)
		return 0;

	self->driver->counters.wakeups++;
	if (PyContext_Enter(context) < 0) {
		/*
		 * Somebody runs the loop from inside this very context (create_task(context=) and a
		 * nested run): asyncio's own queue will find it free later.
		 */
		PyErr_Clear();
		ret = waiter_call_soon(self, callback, context);
	} else {
		result = PyObject_CallOneArg(callback, (PyObject *)self);
		PyErr_Fetch(&type, &value, &traceback);
		ret = result ? 0 : -1;
		Py_XDECREF(result);
		if (PyContext_Exit(context) < 0 && !type)
			ret = -1;
		else
			PyErr_Restore(type, value, traceback);
	}
	Py_DECREF(callback);
	Py_DECREF(context);
	return ret;
}

static int waiter_check_thread(Waiter *self)
{
	if (self->home ? self->home == iox_worker_here(self->driver)
		       : PyThread_get_thread_ident() == self->driver->thread)
		return 0;
	PyErr_SetString(PyExc_RuntimeError,
			"an ioxide await can only be cancelled on its reactor's thread: "
			"use loop.call_soon_threadsafe(task.cancel)");
	return -1;
}

static PyObject *waiter_cancel(Waiter *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	PyObject *message = nargs ? args[0] : names && PyTuple_GET_SIZE(names) ? args[0] : Py_None;

	if (self->state != IOX_WAITER_PENDING)
		Py_RETURN_FALSE; /* the Task then raises CancelledError when it is resumed */
	if (waiter_check_thread(self) < 0)
		return NULL;
	Py_XSETREF(self->cancel_message, Py_NewRef(message));
	self->cancelled = true;
	waiter_queue(self, IOX_WAITER_CANCELLED);
	if (self->home && iox_worker_schedule(self->home) < 0)
		return NULL;
	Py_RETURN_TRUE;
}

static PyObject *waiter_add_done_callback(Waiter *self, PyObject *const *args, Py_ssize_t nargs,
					  PyObject *names)
{
	PyObject *context = NULL;

	if (nargs != 1 || (names && PyTuple_GET_SIZE(names) > 1)) {
		PyErr_SetString(PyExc_TypeError, "add_done_callback(fn, *, context=None)");
		return NULL;
	}
	if (self->callback) {
		PyErr_SetString(PyExc_RuntimeError, "only one task can wait on an ioxide await");
		return NULL;
	}
	if (names && PyTuple_GET_SIZE(names) && args[1] != Py_None)
		context = Py_NewRef(args[1]);
	else if (!(context = PyContext_CopyCurrent()))
		return NULL;
	if (self->state == IOX_WAITER_DONE) {
		int ret = waiter_call_soon(self, args[0], context);

		Py_DECREF(context);
		if (ret < 0)
			return NULL;
		Py_RETURN_NONE;
	}
	self->callback = Py_NewRef(args[0]);
	self->context = context;
	Py_RETURN_NONE;
}

static PyObject *waiter_remove_done_callback(Waiter *self, PyObject *callback)
{
	int same = self->callback ? PyObject_RichCompareBool(self->callback, callback, Py_EQ) : 0;

	if (same < 0)
		return NULL;
	if (same) {
		Py_CLEAR(self->callback);
		Py_CLEAR(self->context);
	}
	return PyLong_FromLong(same);
}

static PyObject *waiter_result(Waiter *self, PyObject *Py_UNUSED(ignored))
{
	if (self->cancelled) {
		if (!self->cancel_message || self->cancel_message == Py_None)
			PyErr_SetNone(iox_CancelledError);
		else
			PyErr_SetObject(iox_CancelledError, self->cancel_message);
		return NULL;
	}
	if (self->state == IOX_WAITER_PENDING) {
		PyErr_SetString(PyExc_RuntimeError, "the ioxide await is not done yet");
		return NULL;
	}
	Py_RETURN_NONE;
}

/* What mode posted puts into the queue of posts. */
static PyObject *waiter_resume_method(Waiter *self, PyObject *Py_UNUSED(ignored))
{
	if (self->state != IOX_WAITER_WOKEN && self->state != IOX_WAITER_CANCELLED)
		Py_RETURN_NONE;
	if (iox_waiter_resume(self) < 0) {
		self->driver->counters.wakeup_faults++;
		if (iox_driver_report(self->driver, "resuming a task raised") < 0)
			return NULL;
	}
	Py_RETURN_NONE;
}

static PyObject *waiter_done(Waiter *self, PyObject *Py_UNUSED(ignored))
{
	return PyBool_FromLong(self->state != IOX_WAITER_PENDING);
}

static PyObject *waiter_cancelled(Waiter *self, PyObject *Py_UNUSED(ignored))
{
	return PyBool_FromLong(self->cancelled);
}

static PyObject *waiter_get_loop(Waiter *self, PyObject *Py_UNUSED(ignored))
{
	PyObject *loop = waiter_loop(self);

	return Py_NewRef(loop ? loop : Py_None);
}

static PyObject *waiter_get_blocking(Waiter *self, void *Py_UNUSED(closure))
{
	return PyBool_FromLong(self->blocking);
}

static int waiter_set_blocking(Waiter *self, PyObject *value, void *Py_UNUSED(closure))
{
	int truth = value ? PyObject_IsTrue(value) : 0;

	if (truth < 0)
		return -1;
	self->blocking = truth;
	return 0;
}

static PyObject *waiter_repr(Waiter *self)
{
	static const char *const states[] = { "idle", "pending", "woken", "cancelled", "done" };

	return PyUnicode_FromFormat("<ioxide wait %s at %p>", states[self->state], self);
}

static PyMethodDef waiter_methods[] = {
	{ "add_done_callback", (PyCFunction)waiter_add_done_callback, METH_FASTCALL | METH_KEYWORDS, NULL },
	{ "remove_done_callback", (PyCFunction)waiter_remove_done_callback, METH_O, NULL },
	{ "cancel", (PyCFunction)waiter_cancel, METH_FASTCALL | METH_KEYWORDS, NULL },
	{ "cancelled", (PyCFunction)waiter_cancelled, METH_NOARGS, NULL },
	{ "done", (PyCFunction)waiter_done, METH_NOARGS, NULL },
	{ "exception", (PyCFunction)waiter_result, METH_NOARGS, NULL },
	{ "get_loop", (PyCFunction)waiter_get_loop, METH_NOARGS, NULL },
	{ "result", (PyCFunction)waiter_result, METH_NOARGS, NULL },
	{ "_resume", (PyCFunction)waiter_resume_method, METH_NOARGS, NULL },
	{ NULL },
};

static PyGetSetDef waiter_getset[] = {
	{ "_asyncio_future_blocking", (getter)waiter_get_blocking, (setter)waiter_set_blocking, NULL, NULL },
	{ NULL },
};

PyTypeObject iox_WaiterType = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "ioxide._ring._core.Waiter",
	.tp_basicsize = sizeof(Waiter),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.tp_doc = "The future-like that asyncio's Task is given; private to the await protocol.",
	.tp_dealloc = (destructor)waiter_dealloc,
	.tp_traverse = (traverseproc)waiter_traverse,
	.tp_clear = (inquiry)waiter_clear,
	.tp_repr = (reprfunc)waiter_repr,
	.tp_methods = waiter_methods,
	.tp_getset = waiter_getset,
};

/* ---- Await -------------------------------------------------------------------------------- */

PyObject *iox_await_new(Connection *conn, enum iox_await_kind kind, Py_ssize_t limit)
{
	Await *self;

	if (free_await_count) {
		self = free_awaits[--free_await_count];
		_Py_NewReference((PyObject *)self);
	} else {
		self = PyObject_GC_New(Await, &iox_AwaitType);
		if (!self)
			return NULL;
	}
	self->conn = (Connection *)Py_NewRef(conn);
	self->waiter = NULL;
	self->limit = limit;
	self->target = conn->driver && conn->driver->workers ? iox_send_target(conn) : conn->bytes_written;
	self->kind = kind;
	self->state = IOX_AWAIT_FRESH;
	PyObject_GC_Track(self);
	return (PyObject *)self;
}

/* Takes the await off its waiter; what has been received stays in the connection's queue. */
static void await_unpark(Await *self)
{
	Waiter *waiter = self->waiter;

	if (!waiter)
		return;
	self->waiter = NULL;
	if (self->conn->reader == waiter) {
		if (!self->conn->fin_sent) /* then it is the clock of the peer's FIN */
			iox_list_remove(&self->conn->read_clock);
		Py_CLEAR(self->conn->reader);
	}
	if (iox_list_linked(&waiter->flushes)) {
		iox_list_remove(&waiter->flushes);
		Py_DECREF(waiter);
	}
	if (waiter->state == IOX_WAITER_PENDING)
		waiter->state = IOX_WAITER_DONE;
	Py_DECREF(waiter);
}

static void await_finish(Await *self)
{
	self->state = IOX_AWAIT_FINISHED;
	await_unpark(self);
}

static int await_traverse(Await *self, visitproc visit, void *arg)
{
	Py_VISIT(self->conn);
	Py_VISIT(self->waiter);
	return 0;
}

static int await_clear(Await *self)
{
	if (self->conn)
		await_finish(self);
	Py_CLEAR(self->conn);
	return 0;
}

static void await_dealloc(Await *self)
{
	PyObject_GC_UnTrack(self);
	await_clear(self);
	if (free_await_count < FREE_LIMIT)
		free_awaits[free_await_count++] = self;
	else
		PyObject_GC_Del(self);
}

static const char *const await_names[] = { "recv()", "read()", "flush()" };

static int await_ready(Await *self)
{
	Connection *conn = self->conn;

	if (self->kind == IOX_AWAIT_FLUSH)
		return iox_send_flush_state(conn, self->target);
	if (conn->reader) {
		PyErr_Format(PyExc_RuntimeError,
			     "another task is already reading from this connection: %s cannot wait too",
			     await_names[self->kind]);
		return -1;
	}
	return iox_recv_ready(conn);
}

static PyObject *await_value(Await *self)
{
	switch (self->kind) {
	case IOX_AWAIT_RECV:
		return iox_recv_take(self->conn, self->limit);
	case IOX_AWAIT_READ:
		return iox_recv_take_slices(self->conn);
	default:
		Py_RETURN_NONE;
	}
}

static int await_park(Await *self, bool on_worker)
{
	Waiter *waiter = iox_waiter_new(self->conn->driver, NULL);

	if (!waiter)
		return -1;
	if (on_worker)
		waiter->home = (Worker *)Py_NewRef(iox_worker_here(self->conn->driver));
	self->waiter = waiter;
	self->state = IOX_AWAIT_PARKED;
	if (self->kind == IOX_AWAIT_FLUSH) {
		waiter->target = self->target;
		if (on_worker)
			return iox_foreign_flush(self->conn, waiter);
		/* The list's reference: as with a reader, a parked task must not be garbage. */
		iox_list_append(&self->conn->flushes, &waiter->flushes);
		Py_INCREF(waiter);
		return 0;
	}
	iox_recv_park(self->conn, waiter);
	return 0;
}

static PySendResult await_send(Await *self, PyObject *Py_UNUSED(value), PyObject **result)
{
	int ready, where;

	*result = NULL;
	if (self->state == IOX_AWAIT_FINISHED) {
		PyErr_Format(PyExc_RuntimeError, "this %s was already awaited: call it again",
			     await_names[self->kind]);
		return PYGEN_ERROR;
	}
	where = iox_conn_check_thread(self->conn);
	if (where < 0)
		return PYGEN_ERROR;
	if (self->state == IOX_AWAIT_PARKED) {
		if (self->waiter->state != IOX_WAITER_DONE) {
			PyErr_Format(PyExc_RuntimeError,
				     "%s was resumed before it was done: await it in an asyncio task",
				     await_names[self->kind]);
			return PYGEN_ERROR;
		}
		await_unpark(self);
	}
	if (where > 0 && self->conn->ending && self->kind != IOX_AWAIT_FLUSH) {
		/* Closed here, though the reactor may not know yet: what is queued is thrown away. */
		*result = self->kind == IOX_AWAIT_RECV ? PyBytes_FromStringAndSize(NULL, 0) : PyList_New(0);
		await_finish(self);
		return *result ? PYGEN_RETURN : PYGEN_ERROR;
	}
	ready = await_ready(self);
	if (ready > 0) {
		*result = await_value(self);
		await_finish(self);
		return *result ? PYGEN_RETURN : PYGEN_ERROR;
	}
	if (ready < 0 || await_park(self, where > 0) < 0) {
		await_finish(self);
		return PYGEN_ERROR;
	}
	*result = Py_NewRef(self->waiter);
	return PYGEN_NEXT;
}

/* CPython 3.12 and newer call tp_iternext, not am_send, on what is not a real generator. */
static PyObject *await_next(Await *self)
{
	PyObject *result;

	switch (await_send(self, Py_None, &result)) {
	case PYGEN_NEXT:
		return result;
	case PYGEN_RETURN:
		if (result != Py_None)
			PyErr_SetObject(PyExc_StopIteration, result);
		Py_DECREF(result);
		return NULL;
	default:
		return NULL;
	}
}

static PyObject *await_send_method(Await *self, PyObject *Py_UNUSED(value))
{
	PyObject *result = await_next(self);

	if (!result && !PyErr_Occurred())
		PyErr_SetNone(PyExc_StopIteration);
	return result;
}

static PyObject *await_throw(Await *self, PyObject *args)
{
	PyObject *type, *value = NULL, *traceback = NULL;

	if (!PyArg_ParseTuple(args, "O|OO:throw", &type, &value, &traceback))
		return NULL;
	await_finish(self);
	if (PyExceptionInstance_Check(type)) {
		PyErr_SetObject((PyObject *)Py_TYPE(type), type);
		return NULL;
	}
	if (!PyExceptionClass_Check(type)) {
		PyErr_SetString(PyExc_TypeError, "throw() takes an exception class or instance");
		return NULL;
	}
	if (value == Py_None)
		value = NULL;
	if (traceback == Py_None)
		traceback = NULL;
	PyErr_Restore(Py_NewRef(type), Py_XNewRef(value), Py_XNewRef(traceback));
	return NULL;
}

static PyObject *await_close(Await *self, PyObject *Py_UNUSED(ignored))
{
	await_finish(self);
	Py_RETURN_NONE;
}

static PyObject *await_self(PyObject *self)
{
	return Py_NewRef(self);
}

static PyMethodDef await_methods[] = {
	{ "send", (PyCFunction)await_send_method, METH_O, NULL },
	{ "throw", (PyCFunction)await_throw, METH_VARARGS, NULL },
	{ "close", (PyCFunction)await_close, METH_NOARGS, NULL },
	{ NULL },
};

static PyAsyncMethods await_async = {
	.am_await = await_self,
	.am_send = (sendfunc)await_send,
};

PyTypeObject iox_AwaitType = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "ioxide._ring._core.Await",
	.tp_basicsize = sizeof(Await),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.tp_doc = "The awaitable of a receive or a flush; a collections.abc.Coroutine, not a future.",
	.tp_dealloc = (destructor)await_dealloc,
	.tp_traverse = (traverseproc)await_traverse,
	.tp_clear = (inquiry)await_clear,
	.tp_as_async = &await_async,
	.tp_iter = await_self,
	.tp_iternext = (iternextfunc)await_next,
	.tp_methods = await_methods,
};

int iox_awaitable_init(PyObject *module)
{
	PyObject *exceptions = PyImport_ImportModule("asyncio.exceptions");

	if (!exceptions)
		return -1;
	iox_CancelledError = PyObject_GetAttrString(exceptions, "CancelledError");
	Py_DECREF(exceptions);
	if (!iox_CancelledError)
		return -1;
	if (PyModule_AddType(module, &iox_WaiterType) < 0)
		return -1;
	return PyModule_AddType(module, &iox_AwaitType);
}
