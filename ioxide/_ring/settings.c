/* SPDX-License-Identifier: MIT */
#include "settings.h"

#include <stddef.h>
#include <string.h>

static const struct setting {
	const char *name;
	size_t offset, size;
	bool is_bool;
} table[] = {
#define SETTING_ROW(type, member)                                                                   \
	{ #member, offsetof(struct iox_settings, member), sizeof(type), _Generic((type)0, bool: true, default: false) },
	IOX_SETTINGS(SETTING_ROW)
#undef SETTING_ROW
};

static int take_bool(const struct setting *setting, PyObject *value, void *to)
{
	if (!PyBool_Check(value)) {
		PyErr_Format(PyExc_TypeError, "%s=%R: must be True or False", setting->name, value);
		return -1;
	}
	*(bool *)to = value == Py_True;
	return 0;
}

static int take_number(const struct setting *setting, PyObject *value, void *to)
{
	unsigned long long most = setting->size == sizeof(uint32_t) ? UINT32_MAX : UINT64_MAX, number;

	if (!PyLong_Check(value) || PyBool_Check(value)) {
		PyErr_Format(PyExc_TypeError, "%s=%R: must be an integer", setting->name, value);
		return -1;
	}
	number = PyLong_AsUnsignedLongLong(value);
	if (number > most || PyErr_Occurred()) { /* OverflowError: it is negative, or has more than 64 bits */
		PyErr_Format(PyExc_OverflowError, "%s=%R: must be an integer from 0 to %llu", setting->name, value,
			     most);
		return -1;
	}
	if (setting->size == sizeof(uint32_t)) {
		uint32_t narrow = (uint32_t)number;

		memcpy(to, &narrow, sizeof(narrow));
	} else {
		uint64_t wide = number;

		_Static_assert(sizeof(size_t) == sizeof(wide), "an integer setting has 32 or 64 bits");
		memcpy(to, &wide, sizeof(wide));
	}
	return 0;
}

static bool is_known(PyObject *name)
{
	for (size_t i = 0; i < Py_ARRAY_LENGTH(table); i++)
		if (PyUnicode_CompareWithASCIIString(name, table[i].name) == 0)
			return true;
	return false;
}

int iox_settings_take(struct iox_settings *settings, PyObject *keywords)
{
	PyObject *name, *value;
	Py_ssize_t at = 0;

	for (size_t i = 0; i < Py_ARRAY_LENGTH(table); i++) {
		void *to = (char *)settings + table[i].offset;

		value = keywords ? PyDict_GetItemString(keywords, table[i].name) : NULL;
		if (!value) {
			PyErr_Format(PyExc_TypeError, "Driver() needs the setting %s", table[i].name);
			return -1;
		}
		if ((table[i].is_bool ? take_bool : take_number)(&table[i], value, to) < 0)
			return -1;
	}
	while (PyDict_Next(keywords, &at, &name, &value))
		if (!is_known(name)) {
			PyErr_Format(PyExc_TypeError, "Driver() has no setting %U", name);
			return -1;
		}
	return 0;
}

PyObject *iox_settings_names(void)
{
	PyObject *names = PyTuple_New(Py_ARRAY_LENGTH(table));

	for (size_t i = 0; names && i < Py_ARRAY_LENGTH(table); i++) {
		PyObject *name = PyUnicode_InternFromString(table[i].name);

		if (!name)
			Py_CLEAR(names);
		else
			PyTuple_SET_ITEM(names, (Py_ssize_t)i, name);
	}
	return names;
}
