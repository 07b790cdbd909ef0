/* SPDX-License-Identifier: MIT */
/*
 * The module ioxide._ring._core: the CPython types of the hot path.  It is in the shared object of
 * ioxide._ring._native, so that both have one copy of the plain files; ioxide/_ring/__init__.py loads it
 * from there.
 */
#include "module.h"

#include "awaitable.h"
#include "connection.h"
#include "driver.h"
#include "face.h"
#include "errors.h"
#include "finished.h"
#include "handles.h"
#include "failing.h"
#include "owner.h"
#include "scheduling.h"
#include "settings.h"
#include "slice.h"
#include "submit.h"
#include "turns.h"
#include "waiter.h"
#include "worker.h"

#include <stdlib.h>

PyDoc_STRVAR(overflow_doc,
"_overflow_on_purpose(at, /)\n--\n\n"
"For tools/sanitize: write the byte `at` of a block of 8, and read the first one.  A sanitizer build must\n"
"not survive 8.  Raises RuntimeError in any other build, which would not notice.");

static PyObject *overflow_on_purpose(PyObject *Py_UNUSED(module), PyObject *arg)
{
#ifdef IOX_SANITIZE
	volatile char *block = malloc(8);
	long at = PyLong_AsLong(arg);
	int value = 0;

	if (block && !PyErr_Occurred()) {
		block[at] = 1;
		value = block[0];
	}
	free((void *)block);
	return PyErr_Occurred() ? NULL : PyLong_FromLong(value);
#else
	PyErr_SetString(PyExc_RuntimeError, "this is no sanitizer build");
	return NULL;
#endif
}

PyDoc_STRVAR(fail_nth_doc,
"_fail_nth(nth, /)\n--\n\n"
"For tests: make the nth memory allocation fail that the kernel makes in the system calls of this module on\n"
"this thread (plain/failing.h); 0 ends that.  Returns in which call one has failed since the last one:\n"
"\"setup\", \"register\", \"mmap\", \"enter\", or \"\".  Raises OSError where the kernel injects no faults, and\n"
"RuntimeError in a build that is not for tests.");

static PyObject *fail_nth(PyObject *Py_UNUSED(module), PyObject *arg)
{
#ifdef IOX_FAULTS
	static const char *const names[] = { "", "setup", "register", "mmap", "enter" };
	unsigned long nth = PyLong_AsUnsignedLong(arg);
	enum iox_failing_call failed;
	int ret;

	if (PyErr_Occurred())
		return NULL;
	failed = iox_failing_disarm();
	ret = nth ? iox_failing_arm((unsigned)nth) : 0;
	if (ret < 0) {
		iox_raise_os_error(-ret, "/proc/thread-self/fail-nth");
		return NULL;
	}
	return PyUnicode_FromString(names[failed]);
#else
	PyErr_SetString(PyExc_RuntimeError, "this is no build for tests: `make build` makes one (IOXIDE_FAULTS=1)");
	return NULL;
#endif
}

static PyMethodDef core_functions[] = {
	{ "_overflow_on_purpose", (PyCFunction)overflow_on_purpose, METH_O, overflow_doc },
	{ "_fail_nth", (PyCFunction)fail_nth, METH_O, fail_nth_doc },
	{ NULL },
};

/* What an operation is for, by the first byte of its user_data. */
static PyObject *kind_names(void)
{
	static const char *const names[] = {
		"unknown",
		[IOX_KIND_ACCEPT] = "accept",
		[IOX_KIND_RECV] = "recv",
		[IOX_KIND_SEND] = "send",
		[IOX_KIND_WAKE] = "wake",
		[IOX_KIND_POLL] = "poll",
		[IOX_KIND_CANCEL] = "cancel",
	};
	PyObject *tuple = PyTuple_New(Py_ARRAY_LENGTH(names));

	for (size_t i = 0; tuple && i < Py_ARRAY_LENGTH(names); i++) {
		PyObject *name = PyUnicode_FromString(names[i]);

		if (!name)
			Py_CLEAR(tuple);
		else
			PyTuple_SET_ITEM(tuple, i, name);
	}
	return tuple;
}

static int add(PyObject *module, const char *name, PyObject *value)
{
	int ret = value ? PyModule_AddObjectRef(module, name, value) : -1;

	Py_XDECREF(value);
	return ret;
}

static const struct {
	PyTypeObject **type;
	PyType_Spec *spec;
} types[] = {
	{ &iox_WaiterType, &iox_WaiterSpec }, { &iox_AwaitType, &iox_AwaitSpec },
	{ &iox_ConnectionType, &iox_ConnectionSpec }, { &iox_SliceType, &iox_SliceSpec },
	{ &iox_WorkerType, &iox_WorkerSpec }, { &iox_DriverType, &iox_DriverSpec },
	{ &iox_SchedulingType, &iox_SchedulingSpec },
};

/* Made once: a module that is loaded once more has the types of the objects that there are. */
static int add_type(PyObject *module, PyTypeObject **type, PyType_Spec *spec)
{
	if (!*type)
		*type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
	return *type ? PyModule_AddType(module, *type) : -1;
}

static int core_exec(PyObject *module)
{
	/* What the types keep is one interpreter's: free lists, interned names, the ring's objects. */
	if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
		PyErr_SetString(PyExc_ImportError,
				"ioxide runs in the main interpreter of a process only, and this is another one: "
				"import it there, or start a process of its own");
		return -1;
	}
	if (iox_owner_init() < 0 || iox_finished_init() < 0 || iox_waiter_init() < 0 || iox_turns_init() < 0 ||
	    iox_handles_init() < 0 || iox_scheduling_init() < 0 || iox_face_init() < 0)
		return -1;
	for (size_t i = 0; i < Py_ARRAY_LENGTH(types); i++)
		if (add_type(module, types[i].type, types[i].spec) < 0)
			return -1;
	return add(module, "SETTINGS", iox_settings_names()) < 0 || add(module, "KINDS", kind_names()) < 0 ? -1 : 0;
}

static PyModuleDef_Slot core_slots[] = {
	{ Py_mod_exec, (void *)core_exec },
	{ 0, NULL },
};

static struct PyModuleDef core_definition = {
	PyModuleDef_HEAD_INIT,
	.m_name = "ioxide._ring._core",
	.m_doc = "The CPython types of the reactor's hot path; see docs/architecture.md.",
	.m_methods = core_functions,
	.m_slots = core_slots,
};

PyMODINIT_FUNC PyInit__core(void)
{
	return PyModuleDef_Init(&core_definition);
}
