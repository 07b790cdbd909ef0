/* SPDX-License-Identifier: MIT */
/* What a tick does with the ring, without running any Python code. */
#ifndef IOX_TICK_H
#define IOX_TICK_H

#include "driver_state.h"

void iox_tick_stage(Driver *driver);
/* timeout_ns < 0: none; idle: it may sleep for a moment where the kernel refuses to submit */
int iox_tick_enter(Driver *driver, bool block, bool idle, int64_t timeout_ns);
void iox_tick_complete(Driver *driver, uint64_t user_data, int res, unsigned flags);
void iox_tick_reap(Driver *driver);
void iox_tick_complete_silent(Driver *driver); /* completes the silent SENDs that did not fail */
bool iox_tick_only_sends(const Driver *driver); /* and at least one has completed */
void iox_tick_expire(Driver *driver);
int64_t iox_tick_next_clock(Driver *driver); /* ms until a clock runs out, or -1 */
bool iox_tick_has_work(Driver *driver);

#endif
