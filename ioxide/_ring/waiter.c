/* SPDX-License-Identifier: MIT */
/*
 * Waiter: what is called when an Await, a transport or another thread's flush has something to go on with.
 *
 * A Task is resumed by calling the wake-up it handed to add_done_callback(), in the Task's context.
 * That happens in iox_waiter_resume() alone, which only iox_waiter_resume_reported() calls while tasks run: no
 * Task is current and no context is entered there.  Whatever completes inside a step is queued
 * (iox_waiter_wake()).
 */
#include "waiter.h"

#include "driver_state.h"
#include "faults.h"
#include "finished.h"
#include "modes.h"

static PyObject *CancelledError;

/* A free list: each parked read and flush needs a Waiter, and an allocation would cost more. */
#define FREE_LIMIT 128

static Waiter *free_waiters[FREE_LIMIT];
static unsigned free_waiter_count;

static Waiter *waiter_alloc(void)
{
	Waiter *self;
	int held;

	if (free_waiter_count) {
		self = free_waiters[--free_waiter_count];
		_Py_NewReference((PyObject *)self);
		return self;
	}
	held = iox_collector_hold();
	self = PyObject_GC_New(Waiter, iox_WaiterType);
	iox_collector_release(held);
	return self;
}

static PyObject *copy_context(void)
{
	int held = iox_collector_hold();
	PyObject *context = PyContext_CopyCurrent();

	iox_collector_release(held);
	return context;
}

Waiter *iox_waiter_new(Driver *driver, PyObject *callback)
{
	PyObject *context = NULL;
	Waiter *self;

	if (callback && !(context = copy_context()))
		return NULL;
	self = waiter_alloc();
	if (!self) {
		Py_XDECREF(context);
		return NULL;
	}
	self->driver = (Driver *)Py_NewRef(driver);
	self->home = &driver->home;
	self->worker = NULL;
	self->callback = Py_XNewRef(callback);
	self->context = context;
	self->cancel_message = NULL;
	IOX_LISTS_INIT(&self->ready, &self->flushes);
	self->target = 0;
	self->state = IOX_WAITER_PENDING;
	self->cancelled = self->standing = false;
	self->blocking = true;
	self->resolves_future = callback;
	PyObject_GC_Track(self);
	return self;
}

Waiter *iox_waiter_standing(Driver *driver, PyObject *callback, PyObject *context,
			    int (*call)(void *about, PyObject *callback), void *about)
{
	Waiter *self = iox_waiter_new(driver, NULL);

	if (!self)
		return NULL;
	self->callback = Py_NewRef(callback);
	self->context = Py_NewRef(context);
	self->standing = true;
	self->call = call;
	self->about = about;
	return self;
}

static int waiter_traverse(Waiter *self, visitproc visit, void *arg)
{
	Py_VISIT(Py_TYPE(self));
	Py_VISIT(self->driver);
	Py_VISIT(self->worker);
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
	PyTypeObject *type = Py_TYPE(self);

	PyObject_GC_UnTrack(self);
	/* It is neither in the ready queue nor in the flush list: those hold references. */
	waiter_clear(self);
	Py_CLEAR(self->worker);
	Py_CLEAR(self->driver);
	if (free_waiter_count < FREE_LIMIT) {
		free_waiters[free_waiter_count++] = self; /* and keeps its reference to the type */
	} else {
		PyObject_GC_Del(self);
		Py_DECREF(type);
	}
}

static void waiter_queue(Waiter *self, enum iox_waiter_state state)
{
	self->state = state;
	iox_list_append(&self->home->ready, &self->ready);
	Py_INCREF(self);
}

void iox_waiter_wake(Waiter *self)
{
	if (self->state == IOX_WAITER_PENDING) {
		waiter_queue(self, IOX_WAITER_WOKEN);
		iox_modes_woken(self->home, self->worker);
	}
}

void iox_waiter_wake_next(Waiter *self)
{
	if (self->state != IOX_WAITER_PENDING)
		return;
	self->state = IOX_WAITER_WOKEN;
	iox_list_append(&self->driver->next, &self->ready);
	Py_INCREF(self);
}

static int call_back(Waiter *self, PyObject *callback, bool standing)
{
	PyObject *result;

	if (standing)
		return self->call(self->about, callback);
	result = PyObject_CallOneArg(callback, self->cancelled ? (PyObject *)self :
						   iox_finished_for(callback, (PyObject *)self));
	Py_XDECREF(result);
	return result ? 0 : -1;
}

static int waiter_call_soon(Waiter *self, PyObject *callback, PyObject *context)
{
	PyObject *loop = self->home->loop, *method, *kwargs = NULL, *args = NULL, *handle = NULL;

	if (!loop) {
		PyErr_SetString(PyExc_RuntimeError, "the loop of this ioxide await has ended");
		return -1;
	}
	Py_INCREF(loop); /* the end of a worker may drop it meanwhile */
	method = PyObject_GetAttrString(loop, "call_soon");
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
	Py_DECREF(loop);
	return handle ? 0 : -1;
}

int iox_waiter_resume(Waiter *self)
{
	PyObject *callback = self->callback, *context = self->context;
	PyObject *type, *value, *traceback;
	bool standing = self->standing;
	int ret;

	if (!callback) {
		self->state = IOX_WAITER_DONE;
		return 0;
	}
	if (self->standing) {
		/* Before the call, which may wake it again. */
		Py_INCREF(callback);
		Py_INCREF(context);
		self->state = IOX_WAITER_PENDING;
	} else {
		self->callback = self->context = NULL;
		self->state = IOX_WAITER_DONE;
	}
	self->driver->counters.wakeups++;
	if (PyContext_Enter(context) < 0) {
		/*
		 * The context is entered already: the loop runs inside it (create_task(context=) and a nested
		 * run).  asyncio's own queue calls the callback later.
		 */
		PyErr_Clear();
		ret = waiter_call_soon(self, callback, context);
	} else {
		ret = call_back(self, callback, standing);
		PyErr_Fetch(&type, &value, &traceback);
		if (PyContext_Exit(context) < 0 && !type)
			ret = -1;
		else
			PyErr_Restore(type, value, traceback);
	}
	Py_DECREF(callback);
	Py_DECREF(context);
	return ret;
}

int iox_waiter_resumed(Waiter *self, int ret)
{
	if (ret == 0)
		return 0;
	self->driver->counters.wakeup_faults++;
	return iox_driver_report(self->driver, "resuming a task raised");
}

int iox_waiter_resume_reported(Waiter *self)
{
	return iox_waiter_resumed(self, iox_waiter_resume(self));
}

static int waiter_check_thread(Waiter *self)
{
	if (iox_modes_is_home(self->driver, self->home, self->worker))
		return 0;
	PyErr_SetString(PyExc_RuntimeError,
			"an ioxide await can only be cancelled on its reactor's thread: "
			"use loop.call_soon_threadsafe(task.cancel)");
	return -1;
}

static PyObject *waiter_cancel(Waiter *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	PyObject *message = nargs ? args[0] : names && PyTuple_GET_SIZE(names) ? args[0] : Py_None;
	PyObject *old;

	if (self->state != IOX_WAITER_PENDING)
		Py_RETURN_FALSE; /* the Task then raises CancelledError when it is resumed */
	if (waiter_check_thread(self) < 0)
		return NULL;
	old = self->cancel_message;
	self->cancel_message = Py_NewRef(message);
	self->cancelled = true;
	waiter_queue(self, IOX_WAITER_CANCELLED);
	Py_XDECREF(old); /* after it was queued: a finalizer may cancel again */
	if (iox_modes_cancelled(self->home, self->worker) < 0)
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
	if (names && PyTuple_GET_SIZE(names) && args[1] != Py_None) {
		if (!PyContext_CheckExact(args[1])) {
			PyErr_Format(PyExc_TypeError, "context must be a contextvars.Context, not %R", args[1]);
			return NULL;
		}
		context = Py_NewRef(args[1]);
	}
	if (self->callback) {
		Py_XDECREF(context);
		PyErr_SetString(PyExc_RuntimeError, "only one task can wait on an ioxide await");
		return NULL;
	}
	if (!context && !(context = copy_context()))
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
	PyObject *held = Py_XNewRef(self->callback); /* the comparison may run Python code that drops it */
	int same = held ? PyObject_RichCompareBool(held, callback, Py_EQ) : 0;

	same = same > 0 ? self->callback == held : same;
	Py_XDECREF(held);
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
			PyErr_SetNone(CancelledError);
		else
			PyErr_SetObject(CancelledError, self->cancel_message);
		return NULL;
	}
	if (self->state == IOX_WAITER_PENDING) {
		PyErr_SetString(PyExc_RuntimeError, "the ioxide await is not done yet");
		return NULL;
	}
	Py_RETURN_NONE;
}

/* In mode posted, this is what is put into the queue of posts. */
static PyObject *waiter_resume_method(Waiter *self, PyObject *Py_UNUSED(ignored))
{
	if (self->state != IOX_WAITER_WOKEN && self->state != IOX_WAITER_CANCELLED)
		Py_RETURN_NONE;
	if (iox_waiter_resume_reported(self) < 0)
		return NULL;
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

static PyObject *waiter_get_loop(Waiter *self, void *Py_UNUSED(closure))
{
	PyObject *loop = self->home->loop;

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

PyDoc_STRVAR(waiter_add_done_callback_doc,
"add_done_callback($self, callback, /, *, context=None)\n"
"--\n"
"\n"
"What a Task calls: `callback(waiter)` runs in `context` when the wait has ended.  One callback at a time.");

PyDoc_STRVAR(waiter_remove_done_callback_doc,
"remove_done_callback($self, callback, /)\n"
"--\n"
"\n"
"Forget the callback: 1 if it was there, otherwise 0.");

PyDoc_STRVAR(waiter_cancel_doc,
"cancel($self, /, msg=None)\n"
"--\n"
"\n"
"Cancel the wait: True, or False when it has ended.");

PyDoc_STRVAR(waiter_cancelled_doc,
"cancelled($self, /)\n"
"--\n"
"\n"
"Whether the wait was cancelled.");

PyDoc_STRVAR(waiter_done_doc,
"done($self, /)\n"
"--\n"
"\n"
"Whether nobody waits any more.");

PyDoc_STRVAR(waiter_exception_doc,
"exception($self, /)\n"
"--\n"
"\n"
"None, or raises CancelledError.  What a receive raises, its Await raises.");

/* Not get_loop(), which asyncio would prefer: a Task would make a bound method of it for each await. */
PyDoc_STRVAR(waiter_loop_doc,
"The loop of the task that waits.");

PyDoc_STRVAR(waiter_result_doc,
"result($self, /)\n"
"--\n"
"\n"
"None, or raises CancelledError.  What a receive returns, its Await returns.");

PyDoc_STRVAR(waiter_resume_doc,
"_resume($self, /)\n"
"--\n"
"\n"
"Resume the task now; for Driver.continue_by().");

PyDoc_STRVAR(waiter_asyncio_future_blocking_doc,
"Part of asyncio's protocol between a Task and what it waits for.");

static PyMethodDef waiter_methods[] = {
	{ "add_done_callback", (PyCFunction)waiter_add_done_callback, METH_FASTCALL | METH_KEYWORDS,
	  waiter_add_done_callback_doc },
	{ "remove_done_callback", (PyCFunction)waiter_remove_done_callback, METH_O, waiter_remove_done_callback_doc },
	{ "cancel", (PyCFunction)waiter_cancel, METH_FASTCALL | METH_KEYWORDS, waiter_cancel_doc },
	{ "cancelled", (PyCFunction)waiter_cancelled, METH_NOARGS, waiter_cancelled_doc },
	{ "done", (PyCFunction)waiter_done, METH_NOARGS, waiter_done_doc },
	{ "exception", (PyCFunction)waiter_result, METH_NOARGS, waiter_exception_doc },
	{ "result", (PyCFunction)waiter_result, METH_NOARGS, waiter_result_doc },
	{ "_resume", (PyCFunction)waiter_resume_method, METH_NOARGS, waiter_resume_doc },
	{ NULL },
};

static PyGetSetDef waiter_getset[] = {
	{ "_loop", (getter)waiter_get_loop, NULL, waiter_loop_doc, NULL },
	{ "_asyncio_future_blocking", (getter)waiter_get_blocking, (setter)waiter_set_blocking,
	  waiter_asyncio_future_blocking_doc, NULL },
	{ NULL },
};

static PyType_Slot waiter_slots[] = {
	{ Py_tp_doc, (void *)"The future-like that asyncio's Task is given; private to the await protocol." },
	{ Py_tp_dealloc, (void *)waiter_dealloc },
	{ Py_tp_traverse, (void *)waiter_traverse },
	{ Py_tp_clear, (void *)waiter_clear },
	{ Py_tp_repr, (void *)waiter_repr },
	{ Py_tp_methods, (void *)waiter_methods },
	{ Py_tp_getset, (void *)waiter_getset },
	{ 0, NULL },
};

PyType_Spec iox_WaiterSpec = {
	.name = "ioxide._ring._core.Waiter",
	.basicsize = sizeof(Waiter),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC |
		 Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.slots = waiter_slots,
};

PyTypeObject *iox_WaiterType;

int iox_waiter_init(void)
{
	PyObject *exceptions = PyImport_ImportModule("asyncio.exceptions");

	if (!exceptions)
		return -1;
	CancelledError = PyObject_GetAttrString(exceptions, "CancelledError");
	Py_DECREF(exceptions);
	return CancelledError ? 0 : -1;
}
