/* SPDX-License-Identifier: MIT */
#include "modes.h"

void iox_modes_init(Driver *driver)
{
	iox_list_init(&driver->modes.to_notify);
}

void iox_modes_set(Driver *driver, PyObject *on_resume, bool wake_each)
{
	driver->modes.wake_each = wake_each;
	Py_XSETREF(driver->modes.on_resume, on_resume == Py_None ? NULL : Py_NewRef(on_resume));
}

int iox_modes_traverse(const Driver *driver, visitproc visit, void *arg)
{
	Py_VISIT(driver->modes.on_resume);
	return 0;
}

void iox_modes_clear(Driver *driver)
{
	Py_CLEAR(driver->modes.on_resume);
}

unsigned long iox_modes_to_hand_over(const Driver *driver)
{
	const struct iox_node *list = &driver->modes.to_notify;
	unsigned long count = 0;

	for (const struct iox_node *node = list->next; node != list; node = node->next)
		count++;
	return count;
}

/* The task goes on from the queue of posts, at the top of the loop. */
int iox_modes_post(Driver *driver, PyObject *waiter)
{
	PyObject *on_resume = Py_NewRef(driver->modes.on_resume); /* continue_by() may drop it meanwhile */
	PyObject *resume = PyObject_GetAttrString(waiter, "_resume");
	PyObject *result = resume ? PyObject_CallOneArg(on_resume, resume) : NULL;

	Py_XDECREF(resume);
	Py_DECREF(on_resume);
	Py_XDECREF(result);
	return result ? 0 : -1;
}
