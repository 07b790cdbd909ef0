/* SPDX-License-Identifier: MIT */
#include "faults.h"

/* As in asyncio.Handle: of BaseException only these two unwind the loop. */
bool iox_unwinds(void)
{
	return PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit);
}

/* Hands a pending exception to on_fault; KeyboardInterrupt and SystemExit stay raised (-1). */
int iox_driver_report(Driver *self, const char *what)
{
	PyObject *type, *value, *traceback, *on_fault, *result;
	int ret;

	if (iox_unwinds())
		return -1;
	if (!self->on_fault) { /* a worker's, after the end */
		PyErr_WriteUnraisable((PyObject *)self);
		return 0;
	}
	PyErr_Fetch(&type, &value, &traceback);
	PyErr_NormalizeException(&type, &value, &traceback);
	if (traceback)
		PyException_SetTraceback(value, traceback);
	on_fault = Py_NewRef(self->on_fault); /* a worker's may run while close() drops it */
	result = PyObject_CallFunction(on_fault, "sO", what, value);
	Py_XDECREF(type);
	Py_XDECREF(value);
	Py_XDECREF(traceback);
	ret = result || PyErr_ExceptionMatches(PyExc_Exception) ? 0 : -1;
	if (!result && ret == 0)
		PyErr_WriteUnraisable(on_fault);
	Py_XDECREF(result);
	Py_DECREF(on_fault);
	return ret;
}
