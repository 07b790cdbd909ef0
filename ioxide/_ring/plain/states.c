/* SPDX-License-Identifier: MIT */
#include "states.h"

#include <stdio.h>
#include <stdlib.h>

const char *const iox_life_names[] = { "open", "closing", "aborted", "gone" };
const char *const iox_receive_names[] = { "idle", "armed", "cancelling", "starved" };

/* From each, a bit for each that may follow. */
static const unsigned life[] = {
	[IOX_LIFE_OPEN] = 1 << IOX_LIFE_CLOSING | 1 << IOX_LIFE_ABORTED,
	[IOX_LIFE_CLOSING] = 1 << IOX_LIFE_ABORTED | 1 << IOX_LIFE_GONE,
	[IOX_LIFE_ABORTED] = 1 << IOX_LIFE_GONE,
	[IOX_LIFE_GONE] = 0,
};

static const unsigned receive[] = {
	[IOX_RECEIVE_IDLE] = 1 << IOX_RECEIVE_ARMED | 1 << IOX_RECEIVE_STARVED,
	[IOX_RECEIVE_ARMED] = 1 << IOX_RECEIVE_CANCELLING | 1 << IOX_RECEIVE_IDLE,
	/* Back to armed: before the cancel was submitted there was no reason for it any more. */
	[IOX_RECEIVE_CANCELLING] = 1 << IOX_RECEIVE_ARMED | 1 << IOX_RECEIVE_IDLE,
	[IOX_RECEIVE_STARVED] = 1 << IOX_RECEIVE_IDLE,
};

bool iox_life_may(enum iox_life_state from, enum iox_life_state to)
{
	return life[from] & 1 << to;
}

bool iox_receive_may(enum iox_receive_state from, enum iox_receive_state to)
{
	return receive[from] & 1 << to;
}

#ifdef IOX_SANITIZE
static void check(bool allowed, const char *what, const char *from, const char *to)
{
	if (allowed)
		return;
	fprintf(stderr, "ioxide: %s went from %s to %s, which is not in the table of states.c\n", what,
		from, to);
	abort();
}

void iox_life_check(enum iox_life_state from, enum iox_life_state to)
{
	check(iox_life_may(from, to), "a connection's life", iox_life_names[from], iox_life_names[to]);
}

void iox_receive_check(enum iox_receive_state from, enum iox_receive_state to)
{
	check(iox_receive_may(from, to), "a receive", iox_receive_names[from], iox_receive_names[to]);
}
#endif
