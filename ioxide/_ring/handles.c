/* SPDX-License-Identifier: MIT */
/*
 * asyncio's own Handle and TimerHandle.  Both are Python classes with __slots__ (asyncio/events.py, CPython
 * 3.11 to 3.14), whose constructor and _run() are a third of what a callback costs.  Here their slots are
 * written and read directly.  Whoever holds such a handle sees no difference: it is an instance of the same
 * class.  Where the class is not what it was when this module was loaded, its own code runs.
 */
#include "handles.h"

#include <structmember.h>

enum { CALLBACK, ARGS, CANCELLED, LOOP, SOURCE_TRACEBACK, REPR, CONTEXT, SCHEDULED, WHEN, SLOTS };

static const char *const slot_names[SLOTS] = { "_callback", "_args",    "_cancelled", "_loop", "_source_traceback",
					       "_repr",     "_context", "_scheduled", "_when" };

/* Methods that are passed over here, and have to be those of asyncio/events.py. */
static const char *const method_names[] = { "__init__", "__new__", "_run", "__setattr__", "__getattribute__" };
enum { METHODS = sizeof(method_names) / sizeof(method_names[0]) };

static PyTypeObject *handle_type, *timer_type;
static Py_ssize_t offsets[SLOTS]; /* bytes from the start of an instance; 0: unknown */
static PyObject *handle_methods[METHODS], *timer_methods[METHODS];
static unsigned int handle_version, timer_version;
static PyObject *str_run, *str_cancelled;

static PyObject **slot(PyObject *handle, int which)
{
	return (PyObject **)((char *)handle + offsets[which]);
}

static void set_slot(PyObject *handle, int which, PyObject *value)
{
	PyObject **place = slot(handle, which), *old = *place;

	*place = Py_NewRef(value);
	Py_XDECREF(old);
}

/* The version of a type's attributes, which changes with each of them; 0: it has none at the moment. */
static unsigned int version_of(PyTypeObject *type)
{
	return PyType_HasFeature(type, Py_TPFLAGS_VALID_VERSION_TAG) ? type->tp_version_tag : 0;
}

static bool same_methods(PyTypeObject *type, PyObject *const *known)
{
	for (int i = 0; i < METHODS; i++) {
		PyObject *method = PyObject_GetAttrString((PyObject *)type, method_names[i]);
		bool same = method && method == known[i];

		PyErr_Clear();
		Py_XDECREF(method);
		if (!same)
			return false;
	}
	return true;
}

bool iox_handles_usable(void)
{
	if (!handle_type)
		return false;
	if (handle_version && handle_version == version_of(handle_type) && timer_version &&
	    timer_version == version_of(timer_type))
		return true;
	if (!same_methods(handle_type, handle_methods) || !same_methods(timer_type, timer_methods)) {
		handle_version = timer_version = 0;
		return false;
	}
	handle_version = version_of(handle_type); /* the lookups have given it one */
	timer_version = version_of(timer_type);
	return true;
}

/* ---- made ------------------------------------------------------------------------------------ */

PyObject *iox_handle_new(PyObject *loop, PyObject *callback, PyObject *args, PyObject *context, PyObject *when)
{
	PyTypeObject *type = when ? timer_type : handle_type;
	PyObject *handle, *entered = context == Py_None ? PyContext_CopyCurrent() : Py_NewRef(context);

	if (!entered)
		return NULL;
	handle = type->tp_alloc(type, 0);
	if (handle) {
		set_slot(handle, CONTEXT, entered);
		set_slot(handle, LOOP, loop);
		set_slot(handle, CALLBACK, callback);
		set_slot(handle, ARGS, args);
		set_slot(handle, CANCELLED, Py_False);
		set_slot(handle, REPR, Py_None);
		set_slot(handle, SOURCE_TRACEBACK, Py_None);
		if (when) {
			set_slot(handle, WHEN, when);
			set_slot(handle, SCHEDULED, Py_False);
		}
	}
	Py_DECREF(entered);
	return handle;
}

/* ---- run ------------------------------------------------------------------------------------- */

/*
 * An exception that a callback has raised here, for Handle._run() to report in its own words: it takes the
 * place of the handle's context, and its run() raises that exception instead of calling the callback again.
 */
typedef struct {
	PyObject_HEAD
	PyObject *handle, *context;
	PyObject *type, *value, *traceback;
} Raised;

static PyObject *raised_run(Raised *self, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
	PyObject *type = self->type, *value = self->value, *traceback = self->traceback;

	self->type = self->value = self->traceback = NULL;
	set_slot(self->handle, CONTEXT, self->context); /* which the report may be made in */
	PyErr_Restore(type, value, traceback);
	return NULL;
}

static void raised_dealloc(Raised *self)
{
	PyTypeObject *type = Py_TYPE(self);

	Py_XDECREF(self->handle);
	Py_XDECREF(self->context);
	Py_XDECREF(self->type);
	Py_XDECREF(self->value);
	Py_XDECREF(self->traceback);
	PyObject_Free(self);
	Py_DECREF(type);
}

static PyMethodDef raised_methods[] = {
	{ "run", (PyCFunction)(void *)raised_run, METH_VARARGS | METH_KEYWORDS, NULL },
	{ NULL },
};

static PyType_Slot raised_slots[] = {
	{ Py_tp_dealloc, (void *)raised_dealloc },
	{ Py_tp_methods, (void *)raised_methods },
	{ 0, NULL },
};

static PyTypeObject *raised_type;

static PyType_Spec raised_spec = {
	.name = "ioxide._ring._core.Raised",
	.basicsize = sizeof(Raised),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.slots = raised_slots,
};

static int call_run(PyObject *handle)
{
	PyObject *result = PyObject_CallMethodNoArgs(handle, str_run);

	Py_XDECREF(result);
	return result ? 0 : -1;
}

/*
 * The exception that is set goes to the loop's exception handler, in the words of Handle._run(); or on, if it
 * is one that ends a loop.
 */
static int report(PyObject *handle, PyObject *context)
{
	Raised *raised;
	int ret;

	raised = PyObject_New(Raised, raised_type);
	if (!raised)
		return -1;
	raised->handle = Py_NewRef(handle);
	raised->context = Py_NewRef(context);
	PyErr_Fetch(&raised->type, &raised->value, &raised->traceback);
	set_slot(handle, CONTEXT, (PyObject *)raised);
	ret = call_run(handle);
	Py_DECREF(raised);
	return ret;
}

/* By its own code: of another class, or one that somebody has changed. */
static int run_by_python(PyObject *handle)
{
	PyObject *value = PyObject_GetAttr(handle, str_cancelled);
	int cancelled = value ? PyObject_IsTrue(value) : -1;

	Py_XDECREF(value);
	return cancelled ? (cancelled < 0 ? -1 : 0) : call_run(handle);
}

int iox_handle_run(PyObject *handle)
{
	PyObject *context, *callback, *args, *result = NULL;
	int ret;

	if ((!Py_IS_TYPE(handle, handle_type) && !Py_IS_TYPE(handle, timer_type)) || !iox_handles_usable())
		return run_by_python(handle);
	if (*slot(handle, CANCELLED) == Py_True)
		return 0;
	context = *slot(handle, CONTEXT);
	callback = *slot(handle, CALLBACK);
	args = *slot(handle, ARGS);
	if (*slot(handle, CANCELLED) != Py_False || !context || !PyContext_CheckExact(context) || !callback ||
	    !args || !PyTuple_CheckExact(args))
		return run_by_python(handle);
	Py_INCREF(context);
	Py_INCREF(callback);
	Py_INCREF(args);
	if (PyContext_Enter(context) == 0) { /* as Context.run() */
		result = PyObject_Vectorcall(callback, ((PyTupleObject *)args)->ob_item,
					     (size_t)PyTuple_GET_SIZE(args), NULL);
		if (PyContext_Exit(context) < 0)
			Py_CLEAR(result);
	}
	ret = result ? 0 : report(handle, context);
	Py_XDECREF(result);
	Py_DECREF(context);
	Py_DECREF(callback);
	Py_DECREF(args);
	return ret;
}

/* ---- timers ---------------------------------------------------------------------------------- */

bool iox_handle_is_timer(PyObject *handle)
{
	return Py_IS_TYPE(handle, timer_type) && iox_handles_usable() && *slot(handle, WHEN) &&
	       PyFloat_CheckExact(*slot(handle, WHEN)) && *slot(handle, CANCELLED);
}

double iox_timer_when(PyObject *timer)
{
	return PyFloat_AS_DOUBLE(*slot(timer, WHEN));
}

bool iox_timer_cancelled(PyObject *timer)
{
	return *slot(timer, CANCELLED) != Py_False;
}

void iox_timer_set_scheduled(PyObject *timer, bool scheduled)
{
	set_slot(timer, SCHEDULED, scheduled ? Py_True : Py_False);
}

/* ---- what the classes are -------------------------------------------------------------------- */

/* Where a slot is; false: the class has no such slot. */
static bool find_slot(PyTypeObject *type, int which)
{
	PyObject *found = PyObject_GetAttrString((PyObject *)type, slot_names[which]);
	PyMemberDef *member;

	if (!found || !Py_IS_TYPE(found, &PyMemberDescr_Type)) {
		PyErr_Clear();
		Py_XDECREF(found);
		return false;
	}
	member = ((PyMemberDescrObject *)found)->d_member;
	offsets[which] = member->type == T_OBJECT_EX && !(member->flags & READONLY) ? member->offset : 0;
	Py_DECREF(found);
	return offsets[which] > 0;
}

static int find_methods(PyTypeObject *type, PyObject **methods)
{
	for (int i = 0; i < METHODS; i++)
		if (!(methods[i] = PyObject_GetAttrString((PyObject *)type, method_names[i])))
			return -1;
	return 0;
}

int iox_handles_init(void)
{
	PyObject *events, *handle, *timer;
	bool known = true;

	str_run = PyUnicode_InternFromString("_run");
	str_cancelled = PyUnicode_InternFromString("_cancelled");
	if (!raised_type)
		raised_type = (PyTypeObject *)PyType_FromSpec(&raised_spec);
	if (!str_run || !str_cancelled || !raised_type)
		return -1;
	events = PyImport_ImportModule("asyncio.events");
	handle = events ? PyObject_GetAttrString(events, "Handle") : NULL;
	timer = handle ? PyObject_GetAttrString(events, "TimerHandle") : NULL;
	Py_XDECREF(events);
	if (!timer || find_methods((PyTypeObject *)handle, handle_methods) < 0 ||
	    find_methods((PyTypeObject *)timer, timer_methods) < 0)
		return -1;
	for (int which = 0; which < SLOTS; which++)
		known = find_slot((PyTypeObject *)timer, which) && known;
	if (known && ((PyTypeObject *)handle)->tp_itemsize == 0) {
		handle_type = (PyTypeObject *)handle;
		timer_type = (PyTypeObject *)timer;
	}
	return 0;
}
