/* SPDX-License-Identifier: MIT */
/* Receive buffers: runs are given back, from any thread; in incremental mode each connection has a group. */
#ifndef IOX_BUFFERS_H
#define IOX_BUFFERS_H

#include "driver_state.h"

void iox_driver_release(Driver *driver, struct iox_group *group, uint16_t bid);
/* The same for a slice, on any thread; takes over its reference to the group. */
void iox_driver_release_slice(Driver *driver, struct iox_group *group, uint16_t bid);
/* Memory for a run instead of a buffer; NULL: there is none.  It is freed with the same number of bytes. */
char *iox_driver_copy_new(Driver *driver, size_t bytes);
void iox_driver_copy_free(Driver *driver, char *memory, size_t bytes);
/* Gives unused memory back; iox_driver_trim_at() says when, in ms, UINT64_MAX: there is none. */
void iox_driver_trim(Driver *driver);
uint64_t iox_driver_trim_at(Driver *driver);
struct iox_group *iox_driver_take_group(Driver *driver); /* NULL: none free, or refused */
void iox_driver_drop_group(Driver *driver, struct iox_group *group);

#endif
