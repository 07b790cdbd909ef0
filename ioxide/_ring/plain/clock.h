/* SPDX-License-Identifier: MIT */
/* The monotonic clock. */
#ifndef IOX_CLOCK_H
#define IOX_CLOCK_H

#include <stdint.h>

uint64_t iox_clock_ms(void);
uint64_t iox_clock_coarse_ms(void); /* behind by up to a jiffy, and a quarter of the price */
int64_t iox_clock_ns(void);

#endif
