/* SPDX-License-Identifier: MIT */
/*
 * The states of a connection, and which may follow which; a picture is in docs/architecture.md.
 *
 * In the test build (make sanitize) a transition that is not in the table ends the process.
 */
#ifndef IOX_STATES_H
#define IOX_STATES_H

#include <stdbool.h>

/* In this order: a later state never goes back to an earlier one. */
enum iox_life_state {
	IOX_LIFE_OPEN,
	IOX_LIFE_CLOSING, /* close(): what is staged is sent, then FIN; nothing is delivered any more */
	IOX_LIFE_ABORTED, /* nothing is sent any more; operations in flight are cancelled */
	IOX_LIFE_GONE,    /* the descriptor is closed */
};

enum iox_receive_state {
	IOX_RECEIVE_IDLE,
	IOX_RECEIVE_ARMED,      /* the kernel has a multishot receive */
	IOX_RECEIVE_CANCELLING, /* likewise; its cancel is wanted, or submitted */
	IOX_RECEIVE_STARVED,    /* no buffer was left; it waits for one */
};

#define IOX_LIFE_STATES    (IOX_LIFE_GONE + 1)
#define IOX_RECEIVE_STATES (IOX_RECEIVE_STARVED + 1)

extern const char *const iox_life_names[IOX_LIFE_STATES], *const iox_receive_names[IOX_RECEIVE_STATES];

bool iox_life_may(enum iox_life_state from, enum iox_life_state to);
bool iox_receive_may(enum iox_receive_state from, enum iox_receive_state to);

#ifdef IOX_SANITIZE
/* These say what is wrong on standard error, and abort(3). */
void iox_life_check(enum iox_life_state from, enum iox_life_state to);
void iox_receive_check(enum iox_receive_state from, enum iox_receive_state to);
#else
static inline void iox_life_check(enum iox_life_state from, enum iox_life_state to)
{
	(void)from, (void)to;
}

static inline void iox_receive_check(enum iox_receive_state from, enum iox_receive_state to)
{
	(void)from, (void)to;
}
#endif

#endif
