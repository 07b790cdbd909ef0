/* SPDX-License-Identifier: MIT */
/*
 * Whose turn a buffer is: runs given back, from any thread, and groups of connections' own.
 *
 * A run holds a whole buffer, whatever it is short of, for as long as nobody reads it.  So when of the
 * shared group no more than an eighth is free (its reserve), runs that are unread when a tick ends are
 * copied into memory of their own, and their connections receive nothing more before they are empty.
 * A slice cannot be copied, because views of it are out: at most three quarters of the buffers are
 * lent, and what is lent beyond that is a copy.  A group of fewer than eight buffers has no reserve:
 * there, runs are copied when another connection waits for a buffer.
 */
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

/* Nobody but this connection waits for a buffer, and it has only itself to wait for. */
static bool starves_alone(const Driver *self, const Connection *conn)
{
	return self->starved.next == &conn->starved && self->starved.prev == &conn->starved;
}

/* Connections take turns, and each tick frees what is wanted and no more: to copy takes time. */
static void vacate(Driver *self)
{
	struct iox_group *group = self->shared;
	uint32_t enough = 2 * iox_group_reserve(group) + 1;

	for (uint32_t left = self->slot_count; left && iox_group_free(group) < enough; left--) {
		Connection *conn;

		if (++self->vacated >= self->slot_count)
			self->vacated = 0;
		conn = self->slots[self->vacated];
		if (conn && conn->chunk_count && !conn->aborted && !starves_alone(self, conn))
			iox_recv_vacate(conn);
	}
}

void iox_driver_provide(Driver *self)
{
	struct iox_group *group = self->shared;
	uint32_t reserve;

	if (!group)
		return;
	reserve = iox_group_reserve(group);
	if (iox_group_free(group) <= reserve && group->held > group->lent &&
	    (reserve || iox_list_linked(&self->starved)))
		vacate(self);
	iox_group_refill(group);
}

/*
 * Between two looks, in ms.  What grew under a load is all given back within three of them after its
 * end; then nothing is left to look for, and an idle reactor sleeps.
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
	/* Completions that were not taken in have used up buffers that count as the kernel's still. */
	if (self->shared && !iox_ring_ready(self->ring) && !iox_ring_overflowed(self->ring))
		iox_group_trim(self->shared);
	iox_slab_pool_trim(&self->slabs);
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
	group = iox_group_new(self->group_slots, self->group_size, true, false);
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
