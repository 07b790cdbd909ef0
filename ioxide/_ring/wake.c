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
		self->woken_locally = true; /* it is awake; its next wait() must not block */
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
	/* Mode pool, which is there to be measured: an eventfd write for each call. */
	__atomic_exchange_n(&self->wake_pending, 1, __ATOMIC_SEQ_CST);
	self->counters.wake_writes++;
	while (write(self->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

bool iox_driver_queue(Driver *self, struct iox_op op)
{
	if (!iox_mailbox_push(&self->foreign, op))
		return false;
	Py_XINCREF(op.conn);
	Py_XINCREF(op.payload);
	iox_driver_wake_for_call(self);
	return true;
}
