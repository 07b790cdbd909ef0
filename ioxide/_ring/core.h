/* SPDX-License-Identifier: MIT */
/* What cffi sees of the CPython types: one call that installs their module. */
#ifndef IOX_CORE_H
#define IOX_CORE_H

int iox_core_module(void);

#endif
