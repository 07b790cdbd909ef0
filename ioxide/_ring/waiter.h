/* SPDX-License-Identifier: MIT */
/* What is called when an Await, a transport or another thread's flush has something to go on with. */
#ifndef IOX_WAITER_H
#define IOX_WAITER_H

#include "home_state.h"
#include "interpreter.h"
#include "list.h"

enum iox_waiter_state {
	IOX_WAITER_IDLE,
	IOX_WAITER_PENDING,   /* a task is parked on it */
	IOX_WAITER_WOKEN,     /* completed; its task is resumed at the end of the batch */
	IOX_WAITER_CANCELLED, /* cancelled; likewise */
	IOX_WAITER_DONE,
};

typedef struct Waiter {
	PyObject_HEAD
	struct Driver *driver;   /* strong */
	struct iox_home *home;   /* where its task lives */
	PyObject *worker;        /* strong; whose home that is, NULL: the reactor's */
	PyObject *callback;      /* the Task's wake-up, while parked */
	PyObject *context;
	PyObject *cancel_message;
	struct iox_node ready;   /* in the queue of its home, which then holds a reference */
	struct iox_node flushes; /* in conn->send.flushes */
	uint64_t target;         /* flush: bytes that must have been sent */
	enum iox_waiter_state state;
	bool cancelled, blocking;
	bool resolves_future;    /* the callback resolves a future, so close() calls it, too */
	bool standing;           /* a transport's: its callback is called each time it is woken */
	int (*call)(void *about, PyObject *callback); /* standing: what calls it; -1 with an exception set */
	void *about;             /* its first argument; it lives until iox_waiter_dismiss() */
} Waiter;

/* The reactor sets the target when it takes the flush in: everything written until then. */
#define IOX_TARGET_NOW UINT64_MAX

extern PyType_Spec iox_WaiterSpec;
extern PyTypeObject *iox_WaiterType; /* made of iox_WaiterSpec by module.c */

int iox_waiter_init(void); /* -1 with an exception set */
Waiter *iox_waiter_new(struct Driver *driver, PyObject *callback); /* NULL: a Task adds its own */
/* Each time that it is woken, call(about, callback) in `context`, until iox_waiter_dismiss(). */
Waiter *iox_waiter_standing(struct Driver *driver, PyObject *callback, PyObject *context,
			    int (*call)(void *about, PyObject *callback), void *about);
void iox_waiter_dismiss(Waiter *waiter); /* ends the calls; drops the reference */
void iox_waiter_wake(Waiter *waiter);
void iox_waiter_wake_next(Waiter *waiter); /* with the next tick */
/* Resumes the waiter's task; -1 with an exception set when that raised. */
int iox_waiter_resume(Waiter *waiter);
/* The same, and reports what that raises; -1: it unwinds. */
int iox_waiter_resume_reported(Waiter *waiter);
int iox_waiter_resumed(Waiter *waiter, int ret); /* reports what a resumption raised */

#endif
