/* SPDX-License-Identifier: MIT */
/* Receive buffers: runs given back, from any thread, and groups of connections' own. */
#ifndef IOX_BUFFERS_H
#define IOX_BUFFERS_H

#include "driver_state.h"

void iox_driver_release(Driver *driver, struct iox_group *group, uint16_t bid);
/* The same for a slice, on any thread; takes over its reference to the group. */
void iox_driver_release_lent(Driver *driver, struct iox_group *group, uint16_t bid);
/* Memory of a run's own instead of a buffer; NULL when there is none.  Given back with its bytes. */
char *iox_driver_copy_new(Driver *driver, size_t bytes);
void iox_driver_copy_free(Driver *driver, char *memory, size_t bytes);
/* Gives memory that is not used any more back, when it is time: ms, UINT64_MAX when there is none. */
void iox_driver_trim(Driver *driver);
uint64_t iox_driver_trim_at(Driver *driver);
struct iox_group *iox_driver_take_group(Driver *driver); /* NULL: none free, or refused */
void iox_driver_drop_group(Driver *driver, struct iox_group *group);

#endif
