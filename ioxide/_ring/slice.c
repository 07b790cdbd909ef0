/* SPDX-License-Identifier: MIT */
/*
 * One received run, given to Python without a copy; or a copy, when slices hold too many buffers (reserve.c).
 *
 * end() is called when the read() block ends: from then on no new view can be made, and the buffer
 * goes back to the kernel with the last view, on whatever thread that is released.
 */
#include "slice.h"

#include "buffers.h"

typedef struct Slice {
	PyObject_HEAD
	Driver *driver;          /* strong, until given back */
	struct iox_group *group; /* with a reference, until given back */
	struct iox_chunk chunk;
	int exports;
	bool ended;              /* no new views */
} Slice;

PyObject *iox_slice_new(Driver *driver, struct iox_group *group, struct iox_chunk chunk)
{
	Slice *slice = PyObject_New(Slice, iox_SliceType);

	if (!slice)
		return NULL;
	slice->driver = (Driver *)Py_NewRef(driver);
	slice->group = group;
	group->refs++;
	slice->chunk = chunk;
	slice->exports = 0;
	slice->ended = false;
	driver->slices_out++;
	group->in_slices += !chunk.memory;
	return (PyObject *)slice;
}

static void slice_give_back(Slice *slice)
{
	Driver *driver = slice->driver;

	if (!driver || slice->exports)
		return;
	slice->driver = NULL;
	driver->slices_out--;
	if (slice->chunk.memory) {
		iox_driver_copy_free(driver, slice->chunk.memory, slice->chunk.offset + slice->chunk.length);
		iox_group_unref(slice->group);
	} else {
		slice->group->in_slices--;
		iox_driver_release_slice(driver, slice->group, slice->chunk.bid);
	}
	Py_DECREF(driver);
}

static int slice_getbuffer(Slice *slice, Py_buffer *view, int flags)
{
	const struct iox_chunk *chunk = &slice->chunk;
	char *from;

	if (slice->ended || !slice->driver) {
		PyErr_SetString(PyExc_ValueError, "this slice was given back when its read() block ended");
		return -1;
	}
	from = (chunk->memory ? chunk->memory : iox_group_buffer(slice->group, chunk->bid)) + chunk->offset;
	if (PyBuffer_FillInfo(view, (PyObject *)slice, from, (Py_ssize_t)chunk->length, 1, flags) < 0)
		return -1;
	slice->exports++;
	return 0;
}

static void slice_releasebuffer(Slice *slice, Py_buffer *Py_UNUSED(view))
{
	slice->exports--;
	if (slice->ended)
		slice_give_back(slice);
}

static PyObject *slice_end(Slice *slice, PyObject *Py_UNUSED(ignored))
{
	slice->ended = true;
	slice_give_back(slice);
	Py_RETURN_NONE;
}

static void slice_dealloc(Slice *slice)
{
	PyTypeObject *type = Py_TYPE(slice);

	slice_give_back(slice);
	PyObject_Free(slice);
	Py_DECREF(type);
}

PyDoc_STRVAR(slice_end_doc,
"end($self, /)\n"
"--\n"
"\n"
"Make no view any more, and give the buffer back with the last one; on any thread.");

static PyMethodDef slice_methods[] = {
	{ "end", (PyCFunction)slice_end, METH_NOARGS, slice_end_doc },
	{ NULL },
};

static PyType_Slot slice_slots[] = {
	{ Py_tp_doc, (void *)"One received buffer, lent out; goes back to the kernel with its last view." },
	{ Py_tp_dealloc, (void *)slice_dealloc },
	{ Py_bf_getbuffer, (void *)slice_getbuffer },
	{ Py_bf_releasebuffer, (void *)slice_releasebuffer },
	{ Py_tp_methods, (void *)slice_methods },
	{ 0, NULL },
};

PyType_Spec iox_SliceSpec = {
	.name = "ioxide._ring._core.Slice",
	.basicsize = sizeof(Slice),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE |
		 Py_TPFLAGS_DISALLOW_INSTANTIATION,
	.slots = slice_slots,
};

PyTypeObject *iox_SliceType;
