/* SPDX-License-Identifier: MIT */
/*
 * CPython's header, and the rules for its use here.
 *
 * The GIL is held throughout the core but for what may block in the kernel: io_uring_enter(2) in wait()
 * and close(), and the registration of the receive buffers.
 */
#ifndef IOX_INTERPRETER_H
#define IOX_INTERPRETER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

#ifdef Py_GIL_DISABLED
#error "ioxide relies on the GIL between wait() and other threads' wakes, returns and counters"
#endif

/*
 * Until 3.11 allocating an object that the collector tracks may run the collector, and that finalizers,
 * which may change anything here.  So the core allocates with the collector disabled: what it has read before
 * is still true afterwards.  The collection comes with the interpreter's next allocation.  From 3.12 on an
 * allocation only requests a collection, which the interpreter runs later.
 *
 * Raising an exception allocates with the collector enabled: it is the last thing that a function does.
 */
static inline int iox_collector_hold(void)
{
#if PY_VERSION_HEX < 0x030C0000
	return PyGC_Disable();
#else
	return 0;
#endif
}

static inline void iox_collector_release(int held)
{
	if (held)
		PyGC_Enable();
}

#endif
