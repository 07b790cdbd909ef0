/* SPDX-License-Identifier: MIT */
/*
 * Await: what recv(), read() and flush() return; the Task that drives it is given a Waiter.
 *
 * Two objects, because asyncio must not take an Await for a future: where asyncio.isfuture(recv())
 * is true, wait_for() and gather() add their own callbacks to it, and a second reader silently
 * replaces the first.  So the Await is a coroutine in the sense of collections.abc.Coroutine
 * (create_task() accepts it as it is), and only the Task that drives it ever sees the Waiter.
 */
#include "internal.h"

#define FREE_LIMIT 128

static Await *free_awaits[FREE_LIMIT];
static unsigned free_await_count;

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
