/* SPDX-License-Identifier: MIT */
#include "buffers.h"

#include "mailbox.h"
#include "modes.h"
#include "owner.h"
#include "submit.h"
#include "wake.h"

void iox_driver_release(Driver *self, struct iox_group *group, uint16_t bid)
{
	Connection *conn;

	if (!iox_group_release(group, bid) || !group->incremental)
		return; /* the shared group is published once a tick */
	iox_group_publish(group);
	conn = group->owner;
	if (conn && conn->receive.state == IOX_RECEIVE_STARVED) {
		iox_receive_set(conn, IOX_RECEIVE_IDLE);
		self->counters.recv_rearms++;
		iox_want(conn, IOX_WANT_RECV);
	}
}

char *iox_driver_copy_new(Driver *self, size_t bytes)
{
	char *memory = PyMem_RawMalloc(bytes);

	if (memory)
		self->copied_bytes += bytes;
	return memory;
}

void iox_driver_copy_free(Driver *self, char *memory, size_t bytes)
{
	self->copied_bytes -= bytes;
	PyMem_RawFree(memory);
}

/*
 * The interval, in ms.  What has grown under a load is given back within three intervals after its end; then
 * nothing is armed any more, and an idle reactor sleeps.
 */
#define TRIM_INTERVAL 500

uint64_t iox_driver_trim_at(Driver *self)
{
	if (!self->trim_at && (iox_slab_pool_grown(&self->slabs) ||
			       (self->shared && iox_group_grown(self->shared))))
		self->trim_at = self->now + TRIM_INTERVAL;
	return self->trim_at ? self->trim_at : UINT64_MAX;
}

void iox_driver_trim(Driver *self)
{
	if (!self->trim_at || self->trim_at > self->now)
		return;
	self->trim_at = 0;
	/* Completions that were not taken in have used buffers that still count as the kernel's. */
	if (self->shared && !iox_ring_ready(self->ring) && !iox_ring_overflowed(self->ring))
		iox_group_trim(self->shared);
	iox_slab_pool_trim(&self->slabs);
}

static void run_return(const struct iox_op *op)
{
	iox_driver_release(op->driver, op->group, op->bid);
	iox_group_unref(op->group);
}

static bool return_later(Driver *self, struct iox_group *group, uint16_t bid)
{
	struct iox_op op = { .run = run_return, .driver = self, .group = group, .bid = bid };

	if (!iox_mailbox_push(&self->foreign, op))
		return false;
	self->counters.foreign_returns++;
	/* Nothing else wakes the reactor, and a receive may wait for this very buffer. */
	if (iox_list_linked(&self->starved) || group->incremental || iox_modes_wake_each(self))
		iox_driver_wake_for_call(self);
	return true;
}

void iox_driver_release_slice(Driver *self, struct iox_group *group, uint16_t bid)
{
	if (!self->closed && !iox_driver_is_here(self)) {
		if (return_later(self, group, bid))
			return;
		/* No memory to queue it: the GIL is held, so it can be done here, too. */
	}
	if (!self->closed)
		iox_driver_release(self, group, bid);
	iox_group_unref(group);
}

struct iox_group *iox_driver_take_group(Driver *self)
{
	struct iox_group *group;

	if (!self->free_group_count)
		return NULL;
	group = iox_group_new(self->settings.recv_slots, self->settings.recv_buffer_size, true, false);
	if (!group)
		return NULL;
	if (iox_group_register(group, self->ring->uring.ring_fd,
			       self->free_groups[self->free_group_count - 1]) < 0) {
		iox_group_unref(group);
		return NULL;
	}
	self->free_group_count--;
	return group;
}

/* Only after the terminal completion of the receive: until then the kernel may write to the buffers. */
void iox_driver_drop_group(Driver *self, struct iox_group *group)
{
	group->owner = NULL;
	iox_group_unregister(group, self->ring->uring.ring_fd);
	self->free_groups[self->free_group_count++] = group->id;
	iox_group_unref(group); /* slices keep the memory */
}
