/* SPDX-License-Identifier: MIT */
/*
 * The seam for the modes that are not inline: posted, pool and pool_coalesced (ServerConfig.continuation_mode).
 *
 * The rest of the core asks about a mode only by the functions below.  Each of them costs the inline mode one
 * comparison, and the code behind the comparison is in modes.c and homes.c.  What the modes keep is struct
 * iox_modes (home_state.h); tests/lab/test_core_rooms.py holds that no other file reads it.
 *
 * The thread checks of homes.h are not part of the seam: they are needed inline, too.  Where they say that a
 * call comes from a worker, the caller queues it for the reactor (foreign.h).
 */
#ifndef IOX_MODES_H
#define IOX_MODES_H

#include "driver_state.h"
#include "homes.h"
#include "owner.h"

void iox_modes_init(Driver *driver);
/* posted: on_resume is given what resumes a task, or None.  pool: wake_each. */
void iox_modes_set(Driver *driver, PyObject *on_resume, bool wake_each);
int iox_modes_traverse(const Driver *driver, visitproc visit, void *arg);
void iox_modes_clear(Driver *driver);
unsigned long iox_modes_to_hand_over(const Driver *driver); /* workers that iox_modes_hand_over() will tell */
int iox_modes_post(Driver *driver, PyObject *waiter); /* -1 with an exception set */

/* posted: woken tasks do not go on inline, but by iox_modes_post(). */
static inline bool iox_modes_posted(const Driver *driver)
{
	return driver->modes.on_resume;
}

/* pool, pool_coalesced: handlers run on workers. */
static inline bool iox_modes_pooled(const Driver *driver)
{
	return driver->modes.workers;
}

/* This very call comes from a worker: what needs the ring has to be queued for the reactor. */
static inline bool iox_modes_on_worker(const Driver *driver)
{
	return iox_modes_pooled(driver) && iox_home_here(driver);
}

/* pool: each call that is queued for the reactor writes a wake of its own. */
static inline bool iox_modes_wake_each(const Driver *driver)
{
	return driver->modes.wake_each;
}

/* Before each enter: the workers hear of what they have to resume.  -1 with an exception set. */
static inline int iox_modes_hand_over(Driver *driver)
{
	return iox_list_linked(&driver->modes.to_notify) ? iox_homes_hand_over(driver) : 0;
}

/* A task on the calling worker waits: its home, and a reference to the worker. */
static inline struct iox_home *iox_modes_park(const Driver *driver, PyObject **worker)
{
	struct iox_home *home = iox_home_here(driver);

	*worker = Py_NewRef(home->worker);
	return home;
}

/* The next three are about a task whose home this is; worker is NULL for the reactor's. */

/* On the reactor's thread: it was put into the queue of its home. */
static inline void iox_modes_woken(struct iox_home *home, PyObject *worker)
{
	if (worker)
		iox_home_notify(home);
}

/* On the thread of its home: it was put into the queue.  -1 with an exception set. */
static inline int iox_modes_cancelled(struct iox_home *home, PyObject *worker)
{
	return worker ? iox_home_schedule(home) : 0;
}

/* Whether this is the thread of its home. */
static inline bool iox_modes_is_home(const Driver *driver, const struct iox_home *home, PyObject *worker)
{
	return worker ? iox_home_is_here(home) : iox_driver_is_here(driver);
}

#endif
