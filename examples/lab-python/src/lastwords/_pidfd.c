/* SPDX-License-Identifier: MIT */
/* pidfd_open(2) with every flag, whatever the headers of this machine know. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

static PyObject *open_pidfd(PyObject *module, PyObject *args)
{
	int id, flags, fd;

	(void)module;
	if (!PyArg_ParseTuple(args, "ii", &id, &flags))
		return NULL;
	fd = syscall(SYS_pidfd_open, id, flags);
	return fd < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(fd);
}

static PyMethodDef methods[] = {
	{"open", open_pidfd, METH_VARARGS, "A descriptor for a process or thread, with these flags."},
	{0},
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT,
	.m_name = "lastwords._pidfd",
	.m_methods = methods,
};

PyMODINIT_FUNC PyInit__pidfd(void)
{
	PyObject *module = PyModule_Create(&definition);

	/* include/uapi/linux/pidfd.h, Linux 6.9 */
	if (module != NULL && PyModule_AddIntConstant(module, "THREAD", O_EXCL) < 0)
		Py_CLEAR(module);
	return module;
}
