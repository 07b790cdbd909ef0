/* SPDX-License-Identifier: MIT */
/*
 * Await: what recv(), read() and flush() return; the Task that drives it is given a Waiter.
 *
 * Two objects, because asyncio must not take an Await for a future: where asyncio.isfuture(recv())
 * is true, wait_for() and gather() add their own callbacks to it, and a second reader silently
 * replaces the first.  So the Await is a coroutine in the sense of collections.abc.Coroutine
 * (create_task() accepts it as it is), and only the Task that drives it ever sees the Waiter.
 *
 * As a coroutine does, it warns when it is dropped without having been awaited (await_finalize()).
 */
#include "awaitable.h"

#include "driver_state.h"
#include "foreign.h"
#include "modes.h"
#include "receive.h"
#include "send.h"
#include "waiter.h"

#include <string.h>

enum iox_await_state { IOX_AWAIT_FRESH, IOX_AWAIT_PARKED, IOX_AWAIT_FINISHED };

typedef struct Await {
	PyObject_HEAD
	Connection *conn; /* strong */
	Waiter *waiter;          /* strong, while parked */
	PyObject *origin;        /* where it was made, when that is tracked; see cr_origin */
	Py_ssize_t limit;        /* recv: at most so many bytes; -1 = all there is */
	uint64_t target;
	enum iox_await_kind kind;
	enum iox_await_state state;
	bool finalized;          /* tp_finalize is called once for an object: not recycled */
} Await;

/* A free list: each read and flush needs an Await, and an allocation would cost more. */
#define FREE_LIMIT 128

static Await *free_awaits[FREE_LIMIT];
static unsigned free_await_count;

static __attribute__((cold, noinline)) Await *await_alloc(void)
{
	int held = iox_collector_hold();
	Await *self = PyObject_GC_New(Await, iox_AwaitType);

	iox_collector_release(held);
	return self;
}

/* As a coroutine's cr_origin: (file, line, function) of at most `depth` frames, the innermost first. */
static PyObject *call_site(int depth)
{
	PyFrameObject *frame = PyEval_GetFrame(), *back;
	PyObject *list = PyList_New(0), *origin;

	Py_XINCREF(frame);
	for (; list && frame && depth > 0; depth--) {
		PyCodeObject *code = PyFrame_GetCode(frame);
		PyObject *entry = Py_BuildValue("OiO", code->co_filename, PyFrame_GetLineNumber(frame),
						code->co_name);

		if (!entry || PyList_Append(list, entry) < 0)
			Py_CLEAR(list);
		Py_XDECREF(entry);
		Py_DECREF(code);
		back = PyFrame_GetBack(frame);
		Py_SETREF(frame, back);
	}
	Py_XDECREF(frame);
	origin = list ? PyList_AsTuple(list) : NULL;
	Py_XDECREF(list);
	return origin;
}

static inline Await *await_make(Connection *conn, enum iox_await_kind kind, Py_ssize_t limit)
{
	Await *self;

	if (free_await_count) {
		self = free_awaits[--free_await_count];
		_Py_NewReference((PyObject *)self);
	} else if (!(self = await_alloc())) {
		return NULL;
	}
	self->origin = NULL;
	self->finalized = false;
	self->conn = (Connection *)Py_NewRef(conn);
	self->waiter = NULL;
	self->limit = limit;
	self->target = conn->driver && iox_modes_pooled(conn->driver) ? iox_send_target(conn) : conn->send.bytes_written;
	self->kind = kind;
	self->state = IOX_AWAIT_FRESH;
	PyObject_GC_Track(self);
	return self;
}

/* Out of line, because few programs track origins. */
static __attribute__((cold, noinline)) PyObject *await_tracked(Connection *conn, enum iox_await_kind kind,
								Py_ssize_t limit, int depth)
{
	PyObject *origin = call_site(depth);
	Await *self = origin ? await_make(conn, kind, limit) : NULL;

	if (self)
		self->origin = origin;
	else
		Py_XDECREF(origin);
	return (PyObject *)self;
}

PyObject *iox_await_new(Connection *conn, enum iox_await_kind kind, Py_ssize_t limit)
{
	int depth = PyThreadState_Get()->coroutine_origin_tracking_depth;

	if (depth)
		return await_tracked(conn, kind, limit, depth);
	return (PyObject *)await_make(conn, kind, limit);
}

/* Separates the await from its waiter; received bytes stay in the connection's queue. */
static void await_unpark(Await *self)
{
	Waiter *waiter = self->waiter;

	if (!waiter)
		return;
	self->waiter = NULL;
	if (self->conn->receive.reader == waiter) {
		if (!self->conn->life.fin_sent) /* otherwise this is the clock of the peer's FIN */
			iox_list_remove(&self->conn->receive.clock);
		Py_CLEAR(self->conn->receive.reader);
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
	Py_VISIT(Py_TYPE(self));
	Py_VISIT(self->conn);
	Py_VISIT(self->waiter);
	Py_VISIT(self->origin);
	return 0;
}

static inline void await_drop(Await *self)
{
	if (self->waiter)
		await_unpark(self);
	self->state = IOX_AWAIT_FINISHED;
	Py_CLEAR(self->conn);
	Py_CLEAR(self->origin);
}

static int await_clear(Await *self)
{
	await_drop(self);
	return 0;
}

static const char *const qualified_names[] = { "Connection.recv", "Connection.read", "Connection.flush" };

/* It was not awaited: warns in the same words as CPython for a coroutine. */
static void await_finalize(Await *self)
{
	PyObject *type, *value, *traceback, *warnings, *result = NULL;

	self->finalized = true;
	if (self->state != IOX_AWAIT_FRESH)
		return;
	PyErr_Fetch(&type, &value, &traceback);
	warnings = PyImport_ImportModule("warnings");
	if (warnings)
		result = PyObject_CallMethod(warnings, "_warn_unawaited_coroutine", "O", self);
	if (!result && (!warnings || PyErr_ExceptionMatches(PyExc_AttributeError))) {
		/* The interpreter ends, or has no such function any more. */
		PyErr_Clear();
		if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine '%s' was never awaited",
				     qualified_names[self->kind]) == 0)
			result = Py_NewRef(Py_None);
	}
	if (!result)
		PyErr_WriteUnraisable((PyObject *)self);
	Py_XDECREF(result);
	Py_XDECREF(warnings);
	PyErr_Restore(type, value, traceback);
}

static void await_dealloc(Await *self)
{
	PyTypeObject *type = Py_TYPE(self);

	if (self->state == IOX_AWAIT_FRESH && PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0)
		return; /* the warning has kept a reference to it */
	PyObject_GC_UnTrack(self);
	await_drop(self);
	if (free_await_count < FREE_LIMIT && !self->finalized) {
		free_awaits[free_await_count++] = self; /* and keeps its reference to the type */
	} else {
		PyObject_GC_Del(self);
		Py_DECREF(type);
	}
}

static const char *const await_names[] = { "recv()", "read()", "flush()" };

static int await_ready(Await *self)
{
	Connection *conn = self->conn;

	if (self->kind == IOX_AWAIT_FLUSH)
		return iox_send_flush_state(conn, self->target);
	if (conn->receive.reader) {
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
		waiter->home = iox_modes_park(self->conn->driver, &waiter->worker);
	self->waiter = waiter;
	self->state = IOX_AWAIT_PARKED;
	if (self->kind == IOX_AWAIT_FLUSH) {
		waiter->target = self->target;
		if (on_worker)
			return iox_foreign_flush(self->conn, waiter);
		/* The list holds a reference, as for a reader: a parked task must not be garbage. */
		iox_list_append(&self->conn->send.flushes, &waiter->flushes);
		Py_INCREF(waiter);
		return 0;
	}
	iox_recv_park(self->conn, waiter, on_worker);
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
	if (where < 0) {
		if (self->state == IOX_AWAIT_FRESH)
			self->state = IOX_AWAIT_FINISHED; /* it was awaited, so there is no warning */
		return PYGEN_ERROR;
	}
	if (self->conn->life.ending && !where)
		iox_mailbox_do(&self->conn->driver->foreign); /* runs the queued close() or abort() first */
	if (self->state == IOX_AWAIT_PARKED) {
		if (self->waiter->state != IOX_WAITER_DONE) {
			PyErr_Format(PyExc_RuntimeError,
				     "%s was resumed before it was done: await it in an asyncio task",
				     await_names[self->kind]);
			return PYGEN_ERROR;
		}
		await_unpark(self);
	}
	if (where > 0 && self->conn->life.ending && self->kind != IOX_AWAIT_FLUSH) {
		/* Closed on this worker; the reactor may not have run it yet.  Received bytes are thrown away. */
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
	if (traceback && !PyTraceBack_Check(traceback)) {
		PyErr_SetString(PyExc_TypeError, "throw() third argument must be a traceback object");
		return NULL;
	}
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

PyDoc_STRVAR(await_send_doc,
"send($self, value, /)\n"
"--\n"
"\n"
"Go on: the Waiter that a task has to wait for, or StopIteration with the result.  For `await`.");

PyDoc_STRVAR(await_throw_doc,
"throw($self, type, value=None, traceback=None, /)\n"
"--\n"
"\n"
"Raise an exception where the awaitable waits.  For `await`.");

PyDoc_STRVAR(await_close_doc,
"close($self, /)\n"
"--\n"
"\n"
"Wait no more.  A receive that is given up loses nothing.");

PyDoc_STRVAR(await_dunder_name_doc,
"recv, read or flush.");

PyDoc_STRVAR(await_dunder_qualname_doc,
"Connection.recv, Connection.read or Connection.flush.");

static PyMethodDef await_methods[] = {
	{ "send", (PyCFunction)await_send_method, METH_O, await_send_doc },
	{ "throw", (PyCFunction)await_throw, METH_VARARGS, await_throw_doc },
	{ "close", (PyCFunction)await_close, METH_NOARGS, await_close_doc },
	{ NULL },
};

static PyObject *await_get_qualname(Await *self, void *Py_UNUSED(closure))
{
	return PyUnicode_FromString(qualified_names[self->kind]);
}

static PyObject *await_get_name(Await *self, void *Py_UNUSED(closure))
{
	return PyUnicode_FromString(strchr(qualified_names[self->kind], '.') + 1);
}

static PyObject *await_get_origin(Await *self, void *Py_UNUSED(closure))
{
	return Py_NewRef(self->origin ? self->origin : Py_None);
}

static PyGetSetDef await_getset[] = {
	{ "__name__", (getter)await_get_name, NULL, await_dunder_name_doc, NULL },
	{ "__qualname__", (getter)await_get_qualname, NULL, await_dunder_qualname_doc, NULL },
	{ "cr_origin", (getter)await_get_origin, NULL,
	  "Where it was made, as sys.set_coroutine_origin_tracking_depth() says; None when that is 0.", NULL },
	{ NULL },
};

static PyType_Slot await_slots[] = {
	{ Py_tp_doc, (void *)"The awaitable of a receive or a flush; a collections.abc.Coroutine, not a future." },
	{ Py_tp_dealloc, (void *)await_dealloc },
	{ Py_tp_finalize, (void *)await_finalize },
	{ Py_tp_traverse, (void *)await_traverse },
	{ Py_tp_clear, (void *)await_clear },
	{ Py_am_await, (void *)await_self },
	{ Py_am_send, (void *)await_send },
	{ Py_tp_iter, (void *)await_self },
	{ Py_tp_iternext, (void *)await_next },
	{ Py_tp_methods, (void *)await_methods },
	{ Py_tp_getset, (void *)await_getset },
	{ 0, NULL },
};

PyType_Spec iox_AwaitSpec = {
	.name = "ioxide._ring._core.Await",
	.basicsize = sizeof(Await),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC |
		 Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.slots = await_slots,
};

PyTypeObject *iox_AwaitType;
