/* SPDX-License-Identifier: MIT */
/* On which thread a call comes, and how the homes of tasks hear of one another. */
#ifndef IOX_HOMES_H
#define IOX_HOMES_H

#include "connection_state.h"
#include "driver_state.h"

struct iox_home *iox_home_here(const Driver *driver); /* NULL: this thread is none of its workers */
bool iox_home_enter(struct iox_home *home); /* one more worker; false: this thread is one already */
bool iox_home_is_here(const struct iox_home *home);
void iox_home_leave(void);                  /* one worker less; drops a reference to it */
int iox_home_schedule(struct iox_home *home); /* a worker's, on its thread: drain() comes next */
/* Tells the workers what they have to resume; -1 with an exception set: the rest stays for later. */
int iox_homes_hand_over(Driver *driver);
/* 0 on the reactor, 1 on one of its workers, -1 with an exception on any other thread. */
int iox_conn_check_thread(const Connection *conn);
/* -1 with an exception anywhere but on the reactor's own thread. */
int iox_conn_check_reactor(const Connection *conn);

/* On the reactor: a worker has something new, and hears of it before the next enter. */
static inline void iox_home_notify(struct iox_home *home)
{
	if (!home->scheduled && !iox_list_linked(&home->handing))
		iox_list_append(&home->driver->modes.handing, &home->handing);
}

#endif
