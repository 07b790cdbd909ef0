/* SPDX-License-Identifier: MIT */
/* The connections of a reactor, by slot; the generation distinguishes those that have had the same slot. */
#ifndef IOX_TABLE_H
#define IOX_TABLE_H

#include "connection_state.h"
#include "driver_state.h"

bool iox_table_reserve(Driver *driver); /* makes free slots; false: no memory */
uint32_t iox_driver_generation(Driver *driver);
/* Frees the slot.  The table's reference is dropped after the whole batch was taken in (driver->ended). */
void iox_driver_forget(Driver *driver, Connection *conn);

static inline Connection *iox_table_find(const Driver *self, uint32_t generation, uint32_t slot)
{
	Connection *conn = slot < self->slot_count ? self->slots[slot] : NULL;

	return conn && conn->generation == generation ? conn : NULL;
}

#endif
