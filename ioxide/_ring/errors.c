/* SPDX-License-Identifier: MIT */
#include "errors.h"

#include <errno.h>

void iox_raise_os_error(int error, const char *what)
{
	PyObject *args;

	if (!what) {
		errno = error;
		PyErr_SetFromErrno(PyExc_OSError);
		return;
	}
	args = Py_BuildValue("is", error, what);
	if (args) {
		PyErr_SetObject(PyExc_OSError, args); /* OSError picks the subclass by errno */
		Py_DECREF(args);
	}
}
