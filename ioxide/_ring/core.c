/* SPDX-License-Identifier: MIT */
/* Installs the CPython types as the module ioxide._ring._core. */
#include "core.h"

#include "awaitable.h"
#include "connection.h"
#include "driver.h"
#include "owner.h"
#include "slice.h"
#include "waiter.h"
#include "worker.h"

#include <errno.h>
#include <stdlib.h>

static struct PyModuleDef core_definition = {
	PyModuleDef_HEAD_INIT,
	.m_name = "ioxide._ring._core",
	.m_doc = "The CPython types of the reactor's hot path; see docs/architecture.md.",
	.m_size = -1,
};

static int install(void)
{
	static PyTypeObject *const types[] = { &iox_WaiterType, &iox_AwaitType, &iox_ConnectionType,
					       &iox_SliceType, &iox_WorkerType, &iox_DriverType };
	PyObject *modules = PyImport_GetModuleDict(), *module;
	int ret;

	/*
	 * The types are static, and what they keep is one interpreter's.  ioxide/_ring/__init__.py finds
	 * nothing installed then, and says why; so it does where PyGILState_Ensure() has taken us to the
	 * main interpreter, which is what it does until 3.11.
	 */
	if (PyInterpreterState_Get() != PyInterpreterState_Main())
		return 0;

	if (PyDict_GetItemString(modules, core_definition.m_name))
		return 0;
	if (iox_owner_init() < 0)
		return -1;
	module = PyModule_Create(&core_definition);
	if (!module)
		return -1;
	ret = iox_waiter_init();
	for (size_t i = 0; ret == 0 && i < Py_ARRAY_LENGTH(types); i++)
		ret = PyModule_AddType(module, types[i]);
	if (ret == 0)
		ret = PyDict_SetItemString(modules, core_definition.m_name, module);
	Py_DECREF(module);
	return ret;
}

/* `at` 8 is the overflow; without a sanitizer it is refused. */
int iox_overflow_on_purpose(int at)
{
#ifdef IOX_SANITIZE
	volatile char *block = malloc(8);
	int value;

	block[at] = 1;
	value = block[0];
	free((void *)block);
	return value;
#else
	return -ENOSYS;
#endif
}

/* Called through cffi, which has released the GIL. */
int iox_core_module(void)
{
	PyGILState_STATE state = PyGILState_Ensure();
	int ret = install();

	if (ret < 0)
		PyErr_Print();
	PyGILState_Release(state);
	return ret;
}
