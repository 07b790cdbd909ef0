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

/* Methods that are passed over here: asyncio's own, and object's. */
static const char *const method_names[] = { "__init__", "_run", "__new__", "__setattr__", "__getattribute__" };
enum { FIRST_OF_OBJECT = 2, METHODS = sizeof(method_names) / sizeof(method_names[0]) };

static PyTypeObject *handle_type, *timer_type; /* NULL: nothing is done here */
static PyObject *events_names;                 /* of the module asyncio.events */
static Py_ssize_t offsets[SLOTS];              /* bytes from the start of an instance; 0: unknown */
static PyObject *known_of_handle[METHODS + SLOTS], *known_of_timer[METHODS + SLOTS];
static unsigned int handle_version, timer_version;
static PyObject *str_handle, *str_timer, *str_run, *str_cancelled;

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

static const char *attribute_name(int which)
{
	return which < METHODS ? method_names[which] : slot_names[which - METHODS];
}

/* Whether the class has the methods and the slots that it had. */
static bool same_attributes(PyTypeObject *type, PyObject *const *known)
{
	for (int which = 0; which < METHODS + SLOTS; which++) {
		PyObject *found = PyObject_GetAttrString((PyObject *)type, attribute_name(which));
		bool same = found == known[which];

		PyErr_Clear();
		Py_XDECREF(found);
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
	if (!same_attributes(handle_type, known_of_handle) || !same_attributes(timer_type, known_of_timer)) {
		handle_version = timer_version = 0;
		return false;
	}
	handle_version = version_of(handle_type); /* the lookups have given it one */
	timer_version = version_of(timer_type);
	return true;
}

bool iox_handles_named(bool timer)
{
	PyObject *found = PyDict_GetItemWithError(events_names, timer ? str_timer : str_handle);

	if (!found)
		PyErr_Clear();
	return found == (PyObject *)(timer ? timer_type : handle_type);
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
	PyObject *handle, *context, *args; /* args: what the handle had, NULL if it had none */
	PyObject *type, *value, *traceback;
} Raised;

/* The handle has its own context and arguments again, if it had not yet. */
static void put_back(Raised *self)
{
	PyObject **args = slot(self->handle, ARGS), *old = *args;

	if (*slot(self->handle, CONTEXT) != (PyObject *)self)
		return;
	*args = Py_XNewRef(self->args);
	Py_XDECREF(old);
	set_slot(self->handle, CONTEXT, self->context);
}

static PyObject *raised_run(Raised *self, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
	PyObject *type = self->type, *value = self->value, *traceback = self->traceback;

	self->type = self->value = self->traceback = NULL;
	put_back(self); /* an exception handler may run in the handle's context (3.12) */
	PyErr_Restore(type, value, traceback);
	return NULL;
}

static void raised_dealloc(Raised *self)
{
	PyTypeObject *type = Py_TYPE(self);

	Py_XDECREF(self->handle);
	Py_XDECREF(self->context);
	Py_XDECREF(self->args);
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

/* The exception that is set goes to the loop's exception handler, in the words of Handle._run(). */
static int report(PyObject *handle, PyObject *context)
{
	PyObject *args = *slot(handle, ARGS), *none;
	Raised *raised;
	int ret;

	if (PyErr_ExceptionMatches(PyExc_SystemExit) || PyErr_ExceptionMatches(PyExc_KeyboardInterrupt))
		return -1;
	raised = PyObject_New(Raised, raised_type);
	if (!raised)
		return -1;
	raised->handle = Py_NewRef(handle);
	raised->context = Py_NewRef(context);
	raised->args = Py_XNewRef(args);
	PyErr_Fetch(&raised->type, &raised->value, &raised->traceback);
	/* A callback that has cancelled its handle has left no arguments, which _run() unpacks. */
	none = PyTuple_New(0);
	if (none) {
		set_slot(handle, CONTEXT, (PyObject *)raised);
		set_slot(handle, ARGS, none);
		Py_DECREF(none);
	}
	ret = none ? call_run(handle) : -1;
	put_back(raised); /* where _run() did not come so far */
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

/* Whether this is a function of asyncio/events.py, and nobody's wrapper around it. */
static bool of_events(PyObject *method)
{
	return PyFunction_Check(method) && PyFunction_GetGlobals(method) == events_names;
}

/* 1, 0 if somebody has changed the class before this module was loaded, -1 with an exception set */
static int find_attributes(PyTypeObject *type, PyObject **known)
{
	int own = 1;

	for (int which = 0; which < METHODS + SLOTS; which++) {
		PyObject *found = PyObject_GetAttrString((PyObject *)type, attribute_name(which));
		PyObject *of_object = NULL;

		if (!found) {
			if (which < METHODS || !PyErr_ExceptionMatches(PyExc_AttributeError))
				return -1;
			PyErr_Clear(); /* a slot of TimerHandle's */
			continue;
		}
		known[which] = found;
		if (which >= METHODS)
			continue;
		if (which >= FIRST_OF_OBJECT)
			of_object = PyObject_GetAttrString((PyObject *)&PyBaseObject_Type, attribute_name(which));
		own = own && (which < FIRST_OF_OBJECT ? of_events(found) : found == of_object);
		Py_XDECREF(of_object);
	}
	return own;
}

int iox_handles_init(void)
{
	PyObject *events, *handle, *timer;
	int own, own_timer;
	bool known = true;

	str_handle = PyUnicode_InternFromString("Handle");
	str_timer = PyUnicode_InternFromString("TimerHandle");
	str_run = PyUnicode_InternFromString("_run");
	str_cancelled = PyUnicode_InternFromString("_cancelled");
	if (!raised_type)
		raised_type = (PyTypeObject *)PyType_FromSpec(&raised_spec);
	if (!str_handle || !str_timer || !str_run || !str_cancelled || !raised_type)
		return -1;
	events = PyImport_ImportModule("asyncio.events");
	events_names = events ? Py_XNewRef(PyModule_GetDict(events)) : NULL;
	handle = events ? PyObject_GetAttr(events, str_handle) : NULL;
	timer = handle ? PyObject_GetAttr(events, str_timer) : NULL;
	Py_XDECREF(events);
	if (!timer)
		return -1;
	own = PyType_Check(handle) ? find_attributes((PyTypeObject *)handle, known_of_handle) : 0;
	own_timer = PyType_Check(timer) ? find_attributes((PyTypeObject *)timer, known_of_timer) : 0;
	if (own < 0 || own_timer < 0)
		return -1;
	for (int which = 0; which < SLOTS && own && own_timer; which++)
		known = find_slot((PyTypeObject *)timer, which) && known;
	if (known && own && own_timer && PyType_IsSubtype((PyTypeObject *)timer, (PyTypeObject *)handle)) {
		handle_type = (PyTypeObject *)handle;
		timer_type = (PyTypeObject *)timer;
	}
	return 0;
}
