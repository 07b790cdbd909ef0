/* SPDX-License-Identifier: MIT */
/* The Python type of a connection. */
#ifndef IOX_CONNECTION_H
#define IOX_CONNECTION_H

#include "interpreter.h"

extern PyType_Spec iox_ConnectionSpec;
extern PyTypeObject *iox_ConnectionType; /* made of iox_ConnectionSpec by module.c */

#endif
