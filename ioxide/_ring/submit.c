/* SPDX-License-Identifier: MIT */
#include "submit.h"

struct io_uring_sqe *iox_driver_sqe(Driver *self)
{
	struct io_uring_sqe *sqe = iox_ring_sqe(self->ring);

	if (!sqe) {
		/* Full: submit without waiting.  Still full (EBUSY, EAGAIN): the next tick tries again. */
		self->counters.sq_full_flushes++;
		self->counters.enters++;
		iox_ring_enter(self->ring, 0, 0, -1, 0);
		sqe = iox_ring_sqe(self->ring);
	}
	return sqe;
}
