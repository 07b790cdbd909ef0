/* SPDX-License-Identifier: MIT */
/* The Python type of a ring's owner. */
#ifndef IOX_DRIVER_H
#define IOX_DRIVER_H

#include "interpreter.h"

extern PyType_Spec iox_DriverSpec;
extern PyTypeObject *iox_DriverType; /* made of iox_DriverSpec by module.c */

#endif
