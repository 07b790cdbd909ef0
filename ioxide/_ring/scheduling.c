/* SPDX-License-Identifier: MIT */
/*
 * call_soon(), call_at() and call_later() of a loop, as asyncio.base_events has them (CPython 3.11 to 3.14).
 * Debug mode, a closed loop, and arguments that are seldom seen are asyncio's own code's to handle.
 */
#include "scheduling.h"

#include "clock.h"
#include "handles.h"

/* Methods of BaseEventLoop, and asyncio's own functions; NULL where somebody has replaced one before this. */
enum { CALL_SOON, CALL_AT, CALL_LATER, QUEUE_SOON, TIME, METHODS };
static PyObject *method_names[METHODS], *originals[METHODS];
static PyObject *base_names;            /* of the module asyncio.base_events */
static PyObject *time_module, *monotonic;
static PyObject *heap_push, *heap_pop;
static PyObject *str_closed, *str_debug, *str_ready, *str_scheduled, *str_append, *str_monotonic, *str_context;

/* ---- the clock ------------------------------------------------------------------------------- */

static int as_seconds(PyObject *value, double *seconds)
{
	if (!value)
		return -1;
	*seconds = PyFloat_AsDouble(value);
	Py_DECREF(value);
	return *seconds == -1.0 && PyErr_Occurred() ? -1 : 0;
}

int iox_loop_time_is_real(PyObject *loop, PyObject *dict)
{
	PyObject *module;
	int own;

	if (!originals[TIME] || _PyType_Lookup(Py_TYPE(loop), method_names[TIME]) != originals[TIME])
		return 0;
	own = PyDict_Contains(dict, method_names[TIME]);
	if (own)
		return own < 0 ? -1 : 0;
	/* time.monotonic() as asyncio.base_events spells it: tests put other clocks into either module. */
	module = PyDict_GetItemWithError(base_names, method_names[TIME]);
	if (module == time_module && PyDict_GetItemWithError(PyModule_GetDict(module), str_monotonic) == monotonic)
		return 1;
	return PyErr_Occurred() ? -1 : 0;
}

int iox_loop_time(PyObject *loop, PyObject *dict, double *seconds)
{
	int real = iox_loop_time_is_real(loop, dict);

	if (real <= 0)
		return real < 0 ? -1 : as_seconds(PyObject_CallMethodNoArgs(loop, method_names[TIME]), seconds);
	*seconds = (double)iox_clock_ns() / 1e9; /* what time.monotonic() returns, with the same rounding */
	return 0;
}

PyObject *iox_heap_pop(PyObject *heap)
{
	return PyObject_CallOneArg(heap_pop, heap);
}

/* ---- the three methods ----------------------------------------------------------------------- */

/* A call: callback, its arguments, and a context. */
struct call {
	PyObject *dict; /* of the loop */
	PyObject *context;
};

/* The method of the class that comes next among the bases: as super(Scheduling, loop) finds it. */
static PyObject *next_method(PyObject *loop, int which)
{
	PyObject *super = PyObject_CallFunctionObjArgs((PyObject *)&PySuper_Type, iox_SchedulingType, loop, NULL);
	PyObject *method = super ? PyObject_GetAttr(super, method_names[which]) : NULL;

	Py_XDECREF(super);
	return method;
}

/* Whether what these methods do is what asyncio's own would do for a loop of this class. */
static bool check_class(PyObject *loop)
{
	for (int which = CALL_SOON; which <= CALL_LATER; which++) {
		PyObject *method = next_method(loop, which);
		bool same = method && PyMethod_Check(method) && PyMethod_GET_FUNCTION(method) == originals[which];

		PyErr_Clear();
		Py_XDECREF(method);
		if (!same)
			return false;
	}
	return originals[QUEUE_SOON] &&
	       _PyType_Lookup(Py_TYPE(loop), method_names[QUEUE_SOON]) == originals[QUEUE_SOON];
}

static bool class_is_plain(PyObject *loop)
{
	/* Of the class that was asked for last; a change of a base changes it, too. */
	static unsigned int version;
	static bool plain;
	PyTypeObject *type = Py_TYPE(loop);

	if (!version || !PyType_HasFeature(type, Py_TPFLAGS_VALID_VERSION_TAG) || type->tp_version_tag != version) {
		plain = check_class(loop);
		version = PyType_HasFeature(type, Py_TPFLAGS_VALID_VERSION_TAG) ? type->tp_version_tag : 0;
	}
	return plain;
}

static bool is_false(PyObject *dict, PyObject *name)
{
	return PyDict_GetItemWithError(dict, name) == Py_False;
}

/*
 * 1 if this is a call that can be done here, 0 if asyncio's own code is to do it, -1 with an exception set.
 * `before`: arguments before the callback.
 */
static int begin(struct call *call, PyObject *loop, PyObject *const *args, Py_ssize_t before, Py_ssize_t nargs,
		 PyObject *kwnames)
{
	Py_ssize_t named = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
	int ok = nargs > before && iox_handles_usable() && iox_handles_named(before > 0) && class_is_plain(loop);

	call->context = Py_None;
	if (named == 1) {
		int same = PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), str_context);

		ok = ok && same == 0;
		call->context = args[nargs];
	}
	if (!ok || named > 1 || (call->context != Py_None && !PyContext_CheckExact(call->context)))
		return PyErr_Occurred() ? -1 : 0;
	call->dict = PyObject_GenericGetDict(loop, NULL);
	if (!call->dict)
		return -1;
	if (is_false(call->dict, str_closed) && is_false(call->dict, str_debug) &&
	    !PyDict_Contains(call->dict, method_names[QUEUE_SOON]))
		return 1;
	Py_CLEAR(call->dict);
	return PyErr_Occurred() ? -1 : 0;
}

/* What begin() has looked up of the loop, as a new reference; NULL with an exception set. */
static PyObject *queue_of(const struct call *call, PyObject *name)
{
	PyObject *queue = PyDict_GetItemWithError(call->dict, name);

	if (!queue && !PyErr_Occurred())
		PyErr_SetObject(PyExc_AttributeError, name);
	return Py_XNewRef(queue);
}

static PyObject *handle_of(const struct call *call, PyObject *loop, PyObject *const *args, Py_ssize_t nargs,
			   PyObject *when)
{
	PyObject *its = PyTuple_New(nargs - 1), *handle;

	if (!its)
		return NULL;
	for (Py_ssize_t i = 1; i < nargs; i++)
		PyTuple_SET_ITEM(its, i - 1, Py_NewRef(args[i]));
	handle = iox_handle_new(loop, args[0], its, call->context, when);
	Py_DECREF(its);
	return handle;
}

static PyObject *by_asyncio(PyObject *loop, int which, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
	PyObject *method = next_method(loop, which), *result;

	result = method ? PyObject_Vectorcall(method, args, (size_t)nargs, kwnames) : NULL;
	Py_XDECREF(method);
	return result;
}

PyDoc_STRVAR(call_soon_doc,
"call_soon($self, callback, *args, context=None)\n--\n\n"
"Have `callback(*args)` called in the next turn of the loop: asyncio's loop.call_soon().\n\n"
"Returns its asyncio.Handle.  Raises RuntimeError once the loop is closed.");

static PyObject *call_soon(PyObject *loop, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
	struct call call;
	PyObject *ready, *handle, *result;
	int ret = begin(&call, loop, args, 0, nargs, kwnames);

	if (ret <= 0)
		return ret < 0 ? NULL : by_asyncio(loop, CALL_SOON, args, nargs, kwnames);
	ready = queue_of(&call, str_ready);
	Py_DECREF(call.dict);
	handle = ready ? handle_of(&call, loop, args, nargs, NULL) : NULL;
	result = handle ? PyObject_CallMethodOneArg(ready, str_append, handle) : NULL;
	if (!result)
		Py_CLEAR(handle);
	Py_XDECREF(result);
	Py_XDECREF(ready);
	return handle;
}

PyDoc_STRVAR(call_at_doc,
"call_at($self, when, callback, *args, context=None)\n--\n\n"
"Have `callback(*args)` called at `when`, in seconds of the loop's time(): asyncio's loop.call_at().\n\n"
"Returns its asyncio.TimerHandle.  Raises RuntimeError once the loop is closed, and TypeError for a `when`\n"
"of None.");

static PyObject *call_at(PyObject *loop, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
	struct call call;
	PyObject *scheduled, *timer, *result;
	int ret = nargs && PyFloat_CheckExact(args[0]) ? begin(&call, loop, args, 1, nargs, kwnames) : 0;

	if (ret <= 0)
		return ret < 0 ? NULL : by_asyncio(loop, CALL_AT, args, nargs, kwnames);
	scheduled = queue_of(&call, str_scheduled);
	Py_DECREF(call.dict);
	timer = scheduled ? handle_of(&call, loop, args + 1, nargs - 1, args[0]) : NULL;
	result = timer ? PyObject_CallFunctionObjArgs(heap_push, scheduled, timer, NULL) : NULL;
	if (result)
		iox_timer_set_scheduled(timer, true);
	else
		Py_CLEAR(timer);
	Py_XDECREF(result);
	Py_XDECREF(scheduled);
	return timer;
}

PyDoc_STRVAR(call_later_doc,
"call_later($self, delay, callback, *args, context=None)\n--\n\n"
"Have `callback(*args)` called in `delay` seconds: asyncio's loop.call_later().\n\n"
"Returns its asyncio.TimerHandle.  Raises RuntimeError once the loop is closed, and TypeError for a `delay`\n"
"of None.");

enum { MOST_ARGUMENTS = 8 };

static PyObject *call_later(PyObject *loop, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
	Py_ssize_t count = nargs + (kwnames ? PyTuple_GET_SIZE(kwnames) : 0);
	struct call call;
	PyObject *passed[MOST_ARGUMENTS + 1], *timer;
	double now, delay;
	int ret = 0;

	if (nargs && count <= MOST_ARGUMENTS && (PyFloat_CheckExact(args[0]) || PyLong_CheckExact(args[0])))
		ret = begin(&call, loop, args, 1, nargs, kwnames);
	if (ret <= 0)
		return ret < 0 ? NULL : by_asyncio(loop, CALL_LATER, args, nargs, kwnames);
	ret = iox_loop_time_is_real(loop, call.dict);
	if (ret > 0)
		ret = iox_loop_time(loop, call.dict, &now) < 0 ? -1 : 1;
	Py_DECREF(call.dict);
	if (ret <= 0) /* a clock of another kind: whatever time() + delay is */
		return ret < 0 ? NULL : by_asyncio(loop, CALL_LATER, args, nargs, kwnames);
	delay = PyFloat_AsDouble(args[0]);
	if (delay == -1.0 && PyErr_Occurred())
		return NULL;
	passed[0] = loop;
	passed[1] = PyFloat_FromDouble(now + delay);
	if (!passed[1])
		return NULL;
	for (Py_ssize_t i = 1; i < count; i++)
		passed[i + 1] = args[i];
	timer = PyObject_VectorcallMethod(method_names[CALL_AT], passed, (size_t)nargs + 1, kwnames);
	Py_DECREF(passed[1]);
	return timer;
}

PyDoc_STRVAR(scheduling_doc,
"What a loop of asyncio inherits to have its callbacks and timers queued in C.\n\n"
"It has to stand before asyncio's own classes among the bases.");

static PyMethodDef scheduling_methods[] = {
	{ "call_soon", (PyCFunction)(void *)call_soon, METH_FASTCALL | METH_KEYWORDS, call_soon_doc },
	{ "call_at", (PyCFunction)(void *)call_at, METH_FASTCALL | METH_KEYWORDS, call_at_doc },
	{ "call_later", (PyCFunction)(void *)call_later, METH_FASTCALL | METH_KEYWORDS, call_later_doc },
	{ NULL },
};

PyTypeObject *iox_SchedulingType;

static PyType_Slot scheduling_slots[] = {
	{ Py_tp_doc, (void *)scheduling_doc },
	{ Py_tp_methods, (void *)scheduling_methods },
	{ 0, NULL },
};

PyType_Spec iox_SchedulingSpec = {
	.name = "ioxide._ring._core.Scheduling",
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
	.slots = scheduling_slots,
};

/* ---- what it stands on ----------------------------------------------------------------------- */

static PyObject *attribute_of(const char *module, const char *name)
{
	PyObject *imported = PyImport_ImportModule(module), *found;

	found = imported ? PyObject_GetAttrString(imported, name) : NULL;
	Py_XDECREF(imported);
	return found;
}

static bool intern_names(void)
{
	static const char *const names[METHODS] = { "call_soon", "call_at", "call_later", "_call_soon", "time" };

	for (int which = 0; which < METHODS; which++)
		if (!(method_names[which] = PyUnicode_InternFromString(names[which])))
			return false;
	return (str_closed = PyUnicode_InternFromString("_closed")) &&
	       (str_debug = PyUnicode_InternFromString("_debug")) &&
	       (str_ready = PyUnicode_InternFromString("_ready")) &&
	       (str_scheduled = PyUnicode_InternFromString("_scheduled")) &&
	       (str_append = PyUnicode_InternFromString("append")) &&
	       (str_monotonic = PyUnicode_InternFromString("monotonic")) &&
	       (str_context = PyUnicode_InternFromString("context"));
}

int iox_scheduling_init(void)
{
	PyObject *base;

	if (!intern_names() || !(base_names = attribute_of("asyncio.base_events", "__dict__")) ||
	    !(time_module = PyImport_ImportModule("time")) ||
	    !(heap_push = attribute_of("heapq", "heappush")) || !(heap_pop = attribute_of("heapq", "heappop")) ||
	    !(base = attribute_of("asyncio.base_events", "BaseEventLoop")))
		return -1;
	for (int which = 0; which < METHODS; which++) {
		PyObject *method = PyObject_GetAttr(base, method_names[which]);

		if (!method)
			return -1;
		/* By its globals: functools.wraps() copies name and module. */
		if (PyFunction_Check(method) && PyFunction_GetGlobals(method) == base_names)
			originals[which] = method;
		else
			Py_DECREF(method);
	}
	Py_DECREF(base);
	monotonic = PyObject_GetAttr(time_module, str_monotonic);
	/* Somebody has put another clock there before this was imported: it is always called. */
	if (monotonic && !PyCFunction_CheckExact(monotonic))
		Py_SETREF(monotonic, Py_NewRef(Py_None));
	return monotonic ? 0 : -1;
}
