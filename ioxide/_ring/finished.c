/* SPDX-License-Identifier: MIT */
/*
 * A Task in C (_asynciomodule.c, CPython 3.11 to 3.14) asks what it is woken by for its result(), to see
 * whether that is an exception, and does nothing else with it.  It reads the result of an exact
 * asyncio.Future; of anything else it calls the method by a name that it makes anew each time, which costs
 * 1,000 of the 7,500 user instructions of a request.  So the wake-up gets a Future that has the result None.
 */
#include "finished.h"

#include <string.h>

static PyObject *finished;       /* NULL: this Python has no tasks in C */
static PyTypeObject *task_type;
static PyCFunction task_wakeup;  /* once one was seen */

static bool is_wakeup(PyObject *callback)
{
	if (!finished || !PyCFunction_CheckExact(callback))
		return false;
	if (PyCFunction_GET_FUNCTION(callback) == task_wakeup)
		return true;
	if (task_wakeup || strcmp(((PyCFunctionObject *)callback)->m_ml->ml_name, "task_wakeup") != 0 ||
	    !PyCFunction_GET_SELF(callback) || !PyObject_TypeCheck(PyCFunction_GET_SELF(callback), task_type))
		return false;
	task_wakeup = PyCFunction_GET_FUNCTION(callback);
	return true;
}

PyObject *iox_finished_for(PyObject *callback, PyObject *waiter)
{
	return is_wakeup(callback) ? finished : waiter;
}

/* It belongs to no loop: nothing is ever scheduled for it. */
static const char program[] = "class NoLoop:\n"
			      "    get_debug = staticmethod(lambda: False)\n"
			      "finished = Future(loop=NoLoop())\n"
			      "finished.set_result(None)\n";

int iox_finished_init(void)
{
	PyObject *module, *names, *result;

	/*
	 * First: _asyncio imports parts of asyncio, which find _asyncio half initialised then and use their code in
	 * Python instead (CPython 3.11 to 3.13).  asyncio.current_task() would be None in tasks in C.
	 */
	module = PyImport_ImportModule("asyncio");
	if (!module)
		return -1;
	Py_DECREF(module);
	module = PyImport_ImportModule("_asyncio");
	if (!module) {
		if (!PyErr_ExceptionMatches(PyExc_ImportError))
			return -1;
		PyErr_Clear();
		return 0;
	}
	names = PyDict_Copy(PyModule_GetDict(module));
	Py_DECREF(module);
	task_type = names ? (PyTypeObject *)Py_XNewRef(PyDict_GetItemString(names, "Task")) : NULL;
	result = task_type ? PyRun_String(program, Py_file_input, names, names) : NULL;
	finished = result ? Py_XNewRef(PyDict_GetItemString(names, "finished")) : NULL;
	Py_XDECREF(result);
	Py_XDECREF(names);
	if (!finished && !PyErr_Occurred())
		PyErr_SetString(PyExc_ImportError, "the module _asyncio has no Task or no Future");
	return finished ? 0 : -1;
}
