/* SPDX-License-Identifier: MIT */
#include "table.h"

#include "submit.h"

bool iox_table_reserve(Driver *self)
{
	uint32_t count = self->slot_count ? self->slot_count * 2 : 64;
	Connection **slots = PyMem_Realloc(self->slots, count * sizeof(*slots));
	uint32_t *free_slots;

	if (!slots)
		return false;
	self->slots = slots;
	free_slots = PyMem_Realloc(self->free_slots, count * sizeof(*free_slots));
	if (!free_slots)
		return false;
	self->free_slots = free_slots;
	for (uint32_t slot = count; slot > self->slot_count; slot--) {
		slots[slot - 1] = NULL;
		free_slots[self->free_count++] = slot - 1;
	}
	self->slot_count = count;
	return true;
}

/*
 * Generations repeat after 2^24, also those of live connections.  That is no ambiguity: user_data has the slot,
 * too, which a connection keeps until its last completion.
 */
uint32_t iox_driver_generation(Driver *self)
{
	self->generation = (self->generation + 1) & IOX_GENERATION_MASK;
	if (!self->generation)
		self->generation = 1;
	return self->generation;
}

void iox_driver_forget(Driver *self, Connection *conn)
{
	self->slots[conn->slot] = NULL;
	self->free_slots[self->free_count++] = conn->slot;
	self->handler_connections -= conn->for_handler;
	if (!--self->connection_count)
		iox_slab_pool_shrink(&self->slabs);
	if (iox_list_linked(&conn->starting))
		iox_list_remove(&conn->starting);
	iox_list_append(&self->ended, &conn->starting);
}
