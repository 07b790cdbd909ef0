/* SPDX-License-Identifier: MIT */
#include "wake.h"

#include "connection_state.h"
#include "modes.h"
#include "owner.h"

#include <errno.h>
#include <unistd.h>

void iox_driver_wake(Driver *self)
{
	uint64_t one = 1;

	if (self->wake_fd < 0)
		return;
	if (iox_driver_is_here(self)) {
		self->nudged = true; /* awake already: the next wait() must just not block */
		return;
	}
	if (__atomic_exchange_n(&self->wake_pending, 1, __ATOMIC_SEQ_CST)) {
		self->counters.wakes_coalesced++;
		return;
	}
	self->counters.wake_writes++;
	while (write(self->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

void iox_driver_wake_for_call(Driver *self)
{
	uint64_t one = 1;

	if (!iox_modes_wake_each(self) || self->wake_fd < 0) {
		iox_driver_wake(self);
		return;
	}
	/* What upstream did before its issue #96, kept to be measured: a write for each call. */
	__atomic_exchange_n(&self->wake_pending, 1, __ATOMIC_SEQ_CST);
	self->counters.wake_writes++;
	while (write(self->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

bool iox_driver_ask(Driver *self, struct iox_op op)
{
	if (!iox_mailbox_push(&self->foreign, op))
		return false;
	Py_XINCREF(op.conn);
	Py_XINCREF(op.load);
	iox_driver_wake_for_call(self);
	return true;
}
