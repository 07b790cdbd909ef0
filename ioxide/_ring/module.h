/* SPDX-License-Identifier: MIT */
/* The module ioxide._ring._core. */
#ifndef IOX_MODULE_H
#define IOX_MODULE_H

#include "interpreter.h"

PyMODINIT_FUNC PyInit__core(void); /* for Python's import system (PEP 489) */

#endif
