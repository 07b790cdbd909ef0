/* SPDX-License-Identifier: MIT */
/* The thread of a call, and how reactor and workers notify each other. */
#ifndef IOX_HOMES_H
#define IOX_HOMES_H

#include "connection_state.h"
#include "driver_state.h"

struct iox_home *iox_home_here(const Driver *driver); /* of the calling worker; NULL: it is none of this driver's */
bool iox_home_enter(struct iox_home *home); /* one more worker; false: this thread is one already */
bool iox_home_is_here(const struct iox_home *home);
void iox_home_leave(void);                  /* one worker less; drops a reference to it */
int iox_home_schedule(struct iox_home *home); /* a worker's, on its thread: run_ready() comes next */
/* Notifies the workers that have something to resume; -1 with an exception set: the others stay in the list. */
int iox_homes_hand_over(Driver *driver);
/* 0 on the reactor, 1 on one of its workers, -1 with an exception on any other thread. */
int iox_conn_check_thread(const Connection *conn);
/* -1 with an exception anywhere but on the reactor's own thread. */
int iox_conn_check_reactor(const Connection *conn);

/* On the reactor: a worker has something new, and is notified before the next enter. */
static inline void iox_home_notify(struct iox_home *home)
{
	if (!home->scheduled && !iox_list_linked(&home->notify))
		iox_list_append(&home->driver->modes.to_notify, &home->notify);
}

#endif
