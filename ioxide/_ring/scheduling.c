/* SPDX-License-Identifier: MIT */
/*
 * call_soon(), call_at() and call_later() of a loop, as asyncio.base_events has them (CPython 3.11 to 3.14).
 * Debug mode, a closed loop, and arguments that are seldom seen are asyncio's own code's to handle.
 */
#include "scheduling.h"

#include "clock.h"
#include "handles.h"

static PyObject *base_loop, *base_time; /* BaseEventLoop, and its time() */
static PyObject *base_names;            /* of the module asyncio.base_events */
static PyObject *time_module, *monotonic;
static PyObject *heap_push, *heap_pop;
static PyObject *str_closed, *str_debug, *str_ready, *str_scheduled, *str_append, *str_time, *str_monotonic;
static PyObject *str_call_soon, *str_call_at, *str_call_later, *str_context;

/* ---- the clock ------------------------------------------------------------------------------- */

static int as_seconds(PyObject *value, double *seconds)
{
	if (!value)
		return -1;
	*seconds = PyFloat_AsDouble(value);
	Py_DECREF(value);
	return *seconds == -1.0 && PyErr_Occurred() ? -1 : 0;
}

/* `time.monotonic()` as asyncio.base_events spells it: tests put other clocks into either module. */
static int monotonic_time(double *seconds)
{
	PyObject *module = PyDict_GetItemWithError(base_names, str_time), *clock;
	int ret;

	if (!module) {
		if (!PyErr_Occurred())
			PyErr_SetString(PyExc_RuntimeError, "asyncio.base_events has no clock");
		return -1;
	}
	if (module == time_module && PyDict_GetItemWithError(PyModule_GetDict(module), str_monotonic) == monotonic) {
		*seconds = (double)iox_clock_ns() / 1e9; /* what it returns, with the same rounding */
		return 0;
	}
	if (PyErr_Occurred())
		return -1;
	clock = PyObject_GetAttr(module, str_monotonic);
	ret = clock ? as_seconds(PyObject_CallNoArgs(clock), seconds) : -1;
	Py_XDECREF(clock);
	return ret;
}

int iox_loop_time(PyObject *loop, PyObject *dict, double *seconds)
{
	int own = _PyType_Lookup(Py_TYPE(loop), str_time) != base_time || PyDict_Contains(dict, str_time);

	if (own)
		return own < 0 ? -1 : as_seconds(PyObject_CallMethodNoArgs(loop, str_time), seconds);
	return monotonic_time(seconds);
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
	int ok = nargs > before && iox_handles_usable();

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
	if (is_false(call->dict, str_closed) && is_false(call->dict, str_debug))
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

static PyObject *by_asyncio(PyObject *loop, PyObject *name, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
	PyObject *function = PyObject_GetAttr(base_loop, name), *method, *result;

	method = function ? PyMethod_New(function, loop) : NULL;
	Py_XDECREF(function);
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
		return ret < 0 ? NULL : by_asyncio(loop, str_call_soon, args, nargs, kwnames);
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
		return ret < 0 ? NULL : by_asyncio(loop, str_call_at, args, nargs, kwnames);
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
		return ret < 0 ? NULL : by_asyncio(loop, str_call_later, args, nargs, kwnames);
	delay = PyFloat_AsDouble(args[0]);
	ret = delay == -1.0 && PyErr_Occurred() ? -1 : iox_loop_time(loop, call.dict, &now);
	Py_DECREF(call.dict);
	if (ret < 0)
		return NULL;
	passed[0] = loop;
	passed[1] = PyFloat_FromDouble(now + delay);
	if (!passed[1])
		return NULL;
	for (Py_ssize_t i = 1; i < count; i++)
		passed[i + 1] = args[i];
	timer = PyObject_VectorcallMethod(str_call_at, passed, (size_t)nargs + 1, kwnames);
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
	return (str_closed = PyUnicode_InternFromString("_closed")) &&
	       (str_debug = PyUnicode_InternFromString("_debug")) &&
	       (str_ready = PyUnicode_InternFromString("_ready")) &&
	       (str_scheduled = PyUnicode_InternFromString("_scheduled")) &&
	       (str_append = PyUnicode_InternFromString("append")) &&
	       (str_time = PyUnicode_InternFromString("time")) &&
	       (str_monotonic = PyUnicode_InternFromString("monotonic")) &&
	       (str_call_soon = PyUnicode_InternFromString("call_soon")) &&
	       (str_call_at = PyUnicode_InternFromString("call_at")) &&
	       (str_call_later = PyUnicode_InternFromString("call_later")) &&
	       (str_context = PyUnicode_InternFromString("context"));
}

int iox_scheduling_init(void)
{
	if (!intern_names() || !(base_loop = attribute_of("asyncio.base_events", "BaseEventLoop")) ||
	    !(base_names = attribute_of("asyncio.base_events", "__dict__")) ||
	    !(time_module = PyImport_ImportModule("time")) ||
	    !(heap_push = attribute_of("heapq", "heappush")) || !(heap_pop = attribute_of("heapq", "heappop")))
		return -1;
	base_time = PyObject_GetAttr(base_loop, str_time);
	monotonic = base_time ? PyObject_GetAttr(time_module, str_monotonic) : NULL;
	/* Somebody has put another clock there before this was imported: it is always called. */
	if (monotonic && !PyCFunction_CheckExact(monotonic))
		Py_SETREF(monotonic, Py_NewRef(Py_None));
	return monotonic ? 0 : -1;
}
