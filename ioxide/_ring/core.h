/* SPDX-License-Identifier: MIT */
/* What cffi sees of the CPython types: one call that installs their module. */
#ifndef IOX_CORE_H
#define IOX_CORE_H

int iox_core_module(void);
/* Writes one byte past a block of 8; what a sanitizer build must not survive (make sanitize). */
int iox_overflow_on_purpose(int at);

#endif
