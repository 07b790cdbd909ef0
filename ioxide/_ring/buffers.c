/* SPDX-License-Identifier: MIT */
/* Whose turn a buffer is: runs given back, from any thread, and groups of connections' own. */
#include "internal.h"

void iox_driver_release(Driver *self, struct iox_group *group, uint16_t bid)
{
	Connection *conn;

	if (!iox_group_release(group, bid) || !group->incremental)
		return; /* the shared group is published once a tick */
	iox_group_publish(group);
	conn = group->owner;
	if (conn && conn->recv_starved) {
		conn->recv_starved = false;
		self->counters.recv_rearms++;
		iox_want(conn, IOX_WANT_RECV);
	}
}

void iox_driver_release_lent(Driver *self, struct iox_group *group, uint16_t bid)
{
	if (!self->closed && !iox_driver_is_here(self)) {
		if (iox_foreign_return(self, group, bid))
			return;
		/* No memory for the hand-over: the GIL is held, so doing it here is not wrong either. */
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
	group = iox_group_new(self->group_slots, self->group_size, true);
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

/* Only after the receive's terminal completion: until then the kernel may fill our buffers. */
void iox_driver_drop_group(Driver *self, struct iox_group *group)
{
	group->owner = NULL;
	iox_group_unregister(group, self->ring->uring.ring_fd);
	self->free_groups[self->free_group_count++] = group->id;
	iox_group_unref(group); /* lent slices keep the memory */
}
