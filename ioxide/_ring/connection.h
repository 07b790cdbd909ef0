/* SPDX-License-Identifier: MIT */
/* The Python type of a connection. */
#ifndef IOX_CONNECTION_H
#define IOX_CONNECTION_H

#include "interpreter.h"

extern PyTypeObject iox_ConnectionType;

#endif
