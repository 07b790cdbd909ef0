/* SPDX-License-Identifier: MIT */
#include "open.h"

#include "errors.h"
#include "owner.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

static bool open_ring(Driver *self)
{
	int error;

	self->ring = iox_ring_open(self->settings.ring_entries, self->settings.cq_entries,
				   self->settings.register_ring_fd, &error);
	if (!self->ring) {
		iox_raise_os_error(-error, "io_uring_setup(2)");
		return false;
	}
	if (self->settings.record) {
		self->ring->record = iox_record_new(&self->ring->uring);
		if (!self->ring->record)
			PyErr_NoMemory();
	}
	return !self->settings.record || self->ring->record;
}

static bool init_groups(Driver *self)
{
	uint32_t groups = self->settings.groups;
	int ret;

	if (groups) {
		self->free_groups = PyMem_Calloc(groups, sizeof(*self->free_groups));
		if (!self->free_groups) {
			PyErr_NoMemory();
			return false;
		}
		for (unsigned i = groups; i; i--)
			self->free_groups[self->free_group_count++] = (uint16_t)(IOX_FIRST_GROUP + i - 1);
		return true;
	}
	self->shared = iox_group_new(self->settings.recv_slots, self->settings.recv_buffer_size, false,
				     self->settings.recv_bundle);
	ret = -ENOMEM;
	if (self->shared) {
		Py_BEGIN_ALLOW_THREADS
		ret = iox_group_register_waiting(self->shared, self->ring->uring.ring_fd, IOX_SHARED_GROUP);
		Py_END_ALLOW_THREADS
	}
	if (ret < 0)
		iox_raise_os_error(-ret, "IORING_REGISTER_PBUF_RING");
	return ret >= 0;
}

/* Runs no Python code: held bytes are exact bytes objects (send.c). */
static void drop_owner(void *owner)
{
	Py_DECREF((PyObject *)owner);
}

static bool init_slabs(Driver *self)
{
	const struct iox_settings *settings = &self->settings;

	if (iox_slab_pool_init(&self->slabs, settings->write_slab_size, settings->write_limit, settings->pool_max,
			       settings->segmented)) {
		self->slabs.drop_owner = drop_owner;
		return true;
	}
	PyErr_NoMemory();
	return false;
}

static bool open_wake_fd(Driver *self)
{
	self->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (self->wake_fd < 0)
		iox_raise_os_error(errno, "eventfd(2)");
	return self->wake_fd >= 0;
}

bool iox_driver_open(Driver *self)
{
	if (open_ring(self) && init_groups(self) && init_slabs(self) && open_wake_fd(self))
		return true;
	if (self->shared) {
		iox_group_unregister(self->shared, self->ring->uring.ring_fd);
		iox_group_unref(self->shared);
	}
	iox_slab_pool_clear(&self->slabs);
	if (self->ring)
		iox_ring_close(self->ring, true);
	self->ring = NULL;
	return false;
}

void iox_driver_free(Driver *self)
{
	close(self->wake_fd);
	iox_ring_close(self->ring, iox_driver_is_here(self));
	if (self->shared) {
		self->shared->registered = false; /* the ring's end takes it along */
		iox_group_unref(self->shared);
	}
	iox_slab_pool_clear(&self->slabs);
}
