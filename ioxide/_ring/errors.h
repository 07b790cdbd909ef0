/* SPDX-License-Identifier: MIT */
/* Raises OSErrors. */
#ifndef IOX_ERRORS_H
#define IOX_ERRORS_H

#include "interpreter.h"

void iox_raise_os_error(int error, const char *what); /* what: NULL for the error's own text */

#endif
