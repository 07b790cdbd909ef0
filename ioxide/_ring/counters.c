/* SPDX-License-Identifier: MIT */
/* Counters, gauges and the flight recorder of a reactor; from any thread, under the GIL. */
#include "counters.h"

#include "connection_state.h"
#include "modes.h"
#include "owner.h"
#include "send.h"
#include "submit.h"

struct gauges {
	uint32_t buffers_held, starved, draining_sends;
};

static struct gauges count_gauges(const Driver *self)
{
	struct gauges now = { .buffers_held = self->shared ? self->shared->held : 0 };

	for (uint32_t slot = 0; slot < self->slot_count; slot++) {
		const Connection *conn = self->slots[slot];

		if (!conn)
			continue;
		if (!self->shared && conn->receive.group)
			now.buffers_held += conn->receive.group->held;
		now.starved += conn->receive.state == IOX_RECEIVE_STARVED;
		now.draining_sends += conn->life.state != IOX_LIFE_OPEN &&
				      (conn->send.armed || iox_send_zero_copy_pending(conn));
	}
	return now;
}

/* Connections that were accepted and not taken in yet. */
static unsigned long count_accepted(const Driver *self)
{
	const struct io_uring_cq *cq = &self->ring->uring.cq;
	unsigned long count = 0;

	for (unsigned i = 0; i < iox_ring_ready(self->ring); i++) {
		const struct io_uring_cqe *cqe = &cq->cqes[(self->ring->cq_head + i) & cq->ring_mask];

		count += cqe->user_data >> 56 == IOX_KIND_ACCEPT && cqe->res >= 0;
	}
	return count;
}

unsigned long iox_driver_ready_count(const Driver *self)
{
	const struct iox_node *queues[] = { &self->home.ready, &self->next };
	/* In a forked child the completion queue is the parent's, and what comes there is for the parent. */
	unsigned long count = self->ring && self->forks == iox_forks ? count_accepted(self) : 0;

	count += iox_modes_to_hand_over(self);
	for (size_t i = 0; i < Py_ARRAY_LENGTH(queues); i++)
		for (const struct iox_node *node = queues[i]->next; node != queues[i]; node = node->next)
			count++;
	return count;
}

unsigned long iox_driver_listener_count(const Driver *self)
{
	unsigned long count = 0;

	for (unsigned i = 0; i < IOX_MAX_LISTENERS; i++)
		count += self->listeners[i].used && !self->listeners[i].stopping;
	return count;
}

/* Bytes of silent SENDs that the kernel has taken, and that are accounted for when the wait ends. */
static uint64_t count_taken(const Driver *self)
{
	uint64_t bytes = 0;

	for (const struct iox_node *node = self->silent.next; node != &self->silent; node = node->next)
		bytes += iox_send_taken(IOX_ENTRY(node, Connection, send.silent));
	return bytes;
}

PyObject *iox_driver_counters(Driver *self)
{
	struct gauges now = count_gauges(self);
	uint64_t taken = count_taken(self);
	PyObject *counted;

	self->counters.slab_hits = self->slabs.hits;
	self->counters.slab_misses = self->slabs.misses;
	self->counters.slab_grows = self->slabs.grows;
	if (self->ring)
		self->counters.cqes_dropped = iox_ring_dropped(self->ring);
	self->counters.bytes_sent += taken;
#define X(name) "sK,"
	counted = Py_BuildValue("{" IOX_COUNTERS(X) "sk,sk,sk,sk,sK,sk,sk,sk,sK,sK}",
#undef X
#define X(name) #name, (unsigned long long)self->counters.name,
			     IOX_COUNTERS(X)
#undef X
			     "connections_now", (unsigned long)self->connection_count,
			     "starved_now", (unsigned long)now.starved,
			     "draining_sends_now", (unsigned long)now.draining_sends,
			     "buffers_held_now", (unsigned long)now.buffers_held,
			     "recv_copied_bytes_now", (unsigned long long)self->copied_bytes,
			     "groups_free_now", (unsigned long)self->free_group_count,
			     "slices_lent_now", (unsigned long)self->slices_out,
			     "listeners_armed_now", (unsigned long)self->listeners_armed,
			     "slab_bytes_now", (unsigned long long)self->slabs.bytes,
			     "held_bytes_now", (unsigned long long)self->slabs.held);
	self->counters.bytes_sent -= taken;
	return counted;
}

PyObject *iox_driver_record(Driver *self, PyObject *Py_UNUSED(ignored))
{
	const struct iox_record *record = self->ring ? self->ring->record : NULL;
	uint64_t count = record ? record->count : 0, kept = count < IOX_RECORD_ENTRIES ? count : IOX_RECORD_ENTRIES;
	PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(kept * sizeof(*record->entries)));
	struct iox_record_entry *to;

	if (!bytes)
		return NULL;
	to = (struct iox_record_entry *)PyBytes_AS_STRING(bytes);
	for (uint64_t i = count - kept; i < count; i++)
		*to++ = record->entries[i & (IOX_RECORD_ENTRIES - 1)];
	return bytes;
}
