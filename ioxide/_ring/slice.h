/* SPDX-License-Identifier: MIT */
/* One received run, given to Python without a copy. */
#ifndef IOX_SLICE_H
#define IOX_SLICE_H

#include "driver_state.h"
#include "connection_state.h"

extern PyType_Spec iox_SliceSpec;
extern PyTypeObject *iox_SliceType; /* made of iox_SliceSpec by module.c */

PyObject *iox_slice_new(Driver *driver, struct iox_group *group, struct iox_chunk chunk);

#endif
